//! Generates `docs/HOOKS.md` from the models: which family has which hook points.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use residuum::domain::Site;

use crate::model_support::{goldens, load_golden};

/// In how much of a family a site exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    All,
    Some,
    None,
}

/// For each family, the sites of its tiny checkpoints: in every layer of every checkpoint, or in some.
fn shares() -> BTreeMap<String, BTreeMap<Site, Share>> {
    let folders = |path: &Path| std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_dir());
    let mut families = BTreeMap::new();
    let no_family = |folder: &Path| ["gguf", "tokenizers"].map(|name| folder.ends_with(name)).contains(&true);
    for folder in folders(&goldens()).filter(|f| !no_family(f)) {
        let models: Vec<_> = folders(&folder).map(|f| load_golden(&f)).collect();
        let share = |site: Site| {
            let has = |m: &residuum::model::Model| match m.info().layers_with(site) {
                None => Share::None,
                Some(layers) if site.in_block() && layers.len() < m.info().n_layers => Share::Some,
                Some(_) => Share::All,
            };
            let mut all = models.iter().map(has);
            let first = all.next().unwrap();
            if all.all(|s| s == first) { first } else { Share::Some }
        };
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        families.insert(name, Site::ALL.iter().map(|s| (*s, share(*s))).collect());
    }
    families
}

/// The name as the documents write it.
fn spelled(site: Site) -> String {
    if site.in_block() { format!("`blocks.{{l}}.{}`", site.name()) } else { format!("`{}`", site.name()) }
}

/// The column of a site. `ln1.hook_scale` and `ln1.hook_normalized` always exist together and share one.
fn column(site: Site) -> Option<String> {
    match site.name().strip_suffix("hook_normalized") {
        Some(_) => None,
        None => Some(site.name().replace("hook_scale", "*").replace("hook_", "")),
    }
}

fn table() -> String {
    let families = shares();
    let everywhere = |site: &Site| families.values().all(|f| f[site] == Share::All);
    let (common, differing): (Vec<Site>, Vec<Site>) = Site::ALL.iter().copied().partition(everywhere);
    let mut out = String::from(
        "# Hook points of every family\n\n\
         Written by `RESIDUUM_WRITE_DOCS=1 cargo test --test it docs_hooks` from the models themselves; `GET /v1/models/{id}`\n\
         lists those of one model with shapes and axes.\n\nEvery family has\n\n",
    );
    for site in &common {
        let axes: Vec<&str> = site.axes().iter().map(|a| a.name()).collect();
        writeln!(out, "* {} `[{}]`", spelled(*site), axes.join(", ")).unwrap();
    }
    out.push_str(
        "\nand of the others those marked: ● in every layer, ◐ in some layers or with some options.\n\n| family |",
    );
    let columns: Vec<(Site, String)> = differing.iter().filter_map(|s| Some((*s, column(*s)?))).collect();
    columns.iter().for_each(|(_, name)| write!(out, " `{name}` |").unwrap());
    out.push_str("\n|---|");
    columns.iter().for_each(|_| out.push_str(":-:|"));
    for (name, shares) in &families {
        write!(out, "\n| {name} |").unwrap();
        for (site, _) in &columns {
            let mark = match shares[site] {
                Share::All => " ● |",
                Share::Some => " ◐ |",
                Share::None => "  |",
            };
            out.push_str(mark);
        }
    }
    out.push_str("\n\n`ln1.*` and its like stand for `hook_scale` and `hook_normalized` of that norm.\n");
    out
}

#[test]
fn the_table_of_hooks_is_the_committed_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/HOOKS.md");
    let table = table();
    if std::env::var_os("RESIDUUM_WRITE_DOCS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == table, "docs/HOOKS.md is stale: RESIDUUM_WRITE_DOCS=1 cargo test --test it docs_hooks");
}

#[test]
fn every_warning_is_in_the_docs() {
    let docs = include_str!("../../docs/WARNINGS.md");
    for code in residuum::domain::WarningCode::ALL {
        assert!(docs.contains(&format!("`{code}`")), "docs/WARNINGS.md lacks `{code}`");
    }
}
