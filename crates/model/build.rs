//! With `--features cuda`, compiles the GPU kernels to PTX, which the driver turns into code for the GPU it finds.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = "src/device/nvidia/kernels.cu";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where")).join("kernels.ptx");
    let compiler = compiler();
    // Of the oldest kind of GPU that CUDA 13 knows: every later one takes it.
    let arguments = ["-ptx", "-O3", "-std=c++17", "-arch=compute_75", "-o"];
    let status = Command::new(&compiler).args(arguments).arg(&target).arg(SOURCE).status();
    let status =
        status.unwrap_or_else(|e| panic!("--features cuda wants CUDA's compiler, {}: {e}", compiler.display()));
    assert!(status.success(), "{} could not compile {SOURCE}: {status}", compiler.display());
}

/// The compiler that the environment names, or the one on the path.
fn compiler() -> PathBuf {
    if let Some(named) = env::var_os("NVCC") {
        return named.into();
    }
    let folders = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let mut found = folders.map(|folder| Path::new(&folder).join("bin/nvcc")).filter(|nvcc| nvcc.is_file());
    found.next().unwrap_or_else(|| "nvcc".into())
}
