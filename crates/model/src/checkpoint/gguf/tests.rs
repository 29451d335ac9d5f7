use std::{collections::BTreeMap, fs, path::Path};

use safetensors::SafeTensors;

use super::GgufFile;

fn goldens() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/gguf/quants")
}

/// Builds a file: what its header says it has, and what it really has.
struct Draft {
    n_tensors: u64,
    n_keys: u64,
    body: Vec<u8>,
}

impl Draft {
    fn new(n_tensors: u64, n_keys: u64) -> Self {
        Self { n_tensors, n_keys, body: Vec::new() }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    fn u32(self, v: u32) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn u64(self, v: u64) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn text(self, s: &str) -> Self {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }

    /// A tensor of one axis.
    fn tensor(self, name: &str, length: u64, kind: u32, offset: u64) -> Self {
        self.text(name).u32(1).u64(length).u32(kind).u64(offset)
    }

    /// What is wrong with the file.
    fn refusal(self) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("draft.gguf");
        let head = [&b"GGUF\x03\0\0\0"[..], &self.n_tensors.to_le_bytes(), &self.n_keys.to_le_bytes()].concat();
        fs::write(&path, [head, self.body].concat()).unwrap();
        GgufFile::open(&path).expect_err("it should be refused").to_string()
    }
}

#[test]
fn every_type_has_the_numbers_the_gguf_package_gives_it() {
    let file = GgufFile::open(&goldens().join("quants.gguf")).unwrap();
    let bytes = fs::read(goldens().join("expected.safetensors")).unwrap();
    let expected: BTreeMap<String, Vec<f32>> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, t.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
        .collect();
    assert_eq!(expected.len(), 13);
    for (name, expected) in expected {
        let values = file.checkpoint().whole(&name, &[3, 512]).unwrap();
        assert!(expected.iter().any(|v| *v != 0.0), "{name}");
        for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
            let apart = (value.to_bits().cast_signed() - expected.to_bits().cast_signed()).abs();
            assert!(value == expected || apart <= 1, "{name}[{i}] is {value}, not {expected}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = fs::read(goldens().join("quants.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    // The last tensor is followed by less than 32 bytes of padding.
    for length in (0..1000).chain([whole.len() / 2, whole.len() - 32]) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(GgufFile::open(&path).is_err(), "{length}");
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_before_anything_is_allocated() {
    let key = || Draft::new(0, 1).text("a");
    for (draft, expected) in [
        (Draft::new(u64::MAX, 0), "8 bytes are needed at 24, 0 are left"),
        (Draft::new(0, u64::MAX), "8 bytes are needed at 24, 0 are left"),
        (Draft::new(0, 1).u64(u64::MAX), "a string of 18446744073709551615 bytes is too long"),
        (Draft::new(0, 1).u64(1 << 26), "67108864 bytes are needed at 32, 0 are left"),
        (key().u32(9).u32(0).u64(u64::MAX), "`a`: a list of 18446744073709551615 entries is too long"),
        (key().u32(9).u32(4).u64(1 << 24), "`a`: 4 bytes are needed"),
        (key().u32(9).u32(9).u64(1), "`a`: a list of lists is not understood"),
        (key().u32(13).u64(0), "`a`: a value of type 13 is not understood"),
        (key().u32(7).bytes(&[2]), "`a`: a truth value is 2"),
        (Draft::new(1, 0).text("t").u32(u32::MAX), "tensor `t`: 4294967295 axes are too many"),
        (
            Draft::new(1, 0).text("t").u32(2).u64(u64::MAX).u64(u64::MAX).u32(0).u64(0),
            "tensor `t` has the impossible shape",
        ),
        (Draft::new(1, 0).tensor("t", 33, 2, 0), "tensor `t` has the impossible shape [33]"),
        (Draft::new(1, 0).tensor("t", 8, 0, u64::MAX), "is truncated: tensor `t` needs 32 bytes"),
        (Draft::new(1, 0).tensor("t", 8, 0, 0), "is truncated: tensor `t` needs 32 bytes"),
    ] {
        let error = draft.refusal();
        assert!(error.contains("draft.gguf") && error.contains(expected), "{error}");
    }
}

#[test]
fn names_given_twice_and_types_that_are_not_read_are_named() {
    let flag = |d: Draft| d.text("general.x").u32(7).bytes(&[1]);
    for (draft, expected) in [
        (flag(flag(Draft::new(0, 2))), "`general.x` is there twice"),
        (Draft::new(2, 0).tensor("t", 0, 0, 0).tensor("t", 0, 0, 0), "tensor `t` is there twice"),
        (Draft::new(1, 0).tensor("blk.0.x", 32, 20, 0), "tensor `blk.0.x`: type IQ4_NL (20) is not supported"),
        (Draft::new(1, 0).tensor("t", 32, 39, 0), "tensor `t`: type MXFP4 (39) is not supported"),
        (Draft::new(1, 0).tensor("t", 32, 4, 0), "tensor `t`: type unknown (4) is not supported"),
        (
            Draft::new(0, 1).text("general.alignment").u32(4).u32(0),
            "`general.alignment` is not a small positive integer",
        ),
    ] {
        let error = draft.refusal();
        assert!(error.contains(expected), "{error}");
    }
}
