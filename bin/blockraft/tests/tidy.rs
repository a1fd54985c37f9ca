//! The house rules that a program can check. Each test says what to do about it when it fails.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Low to high: a crate may depend on those before it.
const ORDER: [&str; 11] = [
    "blockraft-primitives",
    "blockraft-trie",
    "blockraft-execution",
    "blockraft-protocol",
    "blockraft-storage",
    "blockraft-raft",
    "blockraft-rpc",
    "blockraft-node",
    "blockraft-sim",
    "blockraft",
    "blockraft-bench",
];

/// Dependencies with few homes, and those homes.
const HOMES: [(&str, &[&str]); 5] = [
    ("signet-libmdbx", &["blockraft-storage"]),
    ("openraft", &["blockraft-raft"]),
    // The bench's is the bare loop that the engine is measured against.
    ("revm", &["blockraft-execution", "blockraft-rpc", "blockraft-bench"]),
    ("revm-inspectors", &["blockraft-execution", "blockraft-rpc"]),
    (
        "tokio",
        &["blockraft-raft", "blockraft-rpc", "blockraft-node", "blockraft", "blockraft-bench"],
    ),
];

/// Crates that decide and do not act.
const PURE: [&str; 5] = ["primitives", "trie", "execution", "protocol", "sim"];

/// What streams a finished snapshot: a file that storage named, and checks before it installs it.
const SNAPSHOT_STREAMS: [&str; 2] =
    ["crates/node/src/application.rs", "crates/raft/src/network/snapshot.rs"];

/// A Rust file longer than this has more than one subject, or is listed below.
const LINES_MAX: usize = 700;

/// Files that were longer when the rule was made, with the length that they may not exceed.
const LONG_FILES: [(&str, usize); 1] = [("crates/trie/src/subtrie.rs", 720)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace root exists")
}

/// Every file that is tracked or about to be, relative to the root, sorted.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "these tests need a git checkout");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let names = text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned);
    let mut names: Vec<String> = names.filter(|name| root().join(name).is_file()).collect();
    names.sort_unstable();
    names
}

fn files_ending(suffix: &str) -> Vec<String> {
    files().into_iter().filter(|name| name.ends_with(suffix)).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The workspace's manifests by package name, with their folders.
fn manifests() -> BTreeMap<String, (String, toml::Table)> {
    let workspace: toml::Table = read("Cargo.toml").parse().expect("the root manifest is TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members is a list");
    members
        .iter()
        .map(|member| {
            let folder = member.as_str().expect("a member is a path").to_owned();
            let manifest: toml::Table =
                read(&format!("{folder}/Cargo.toml")).parse().expect("manifests are TOML");
            let name = manifest["package"]["name"].as_str().expect("a name is text").to_owned();
            (name, (folder, manifest))
        })
        .collect()
}

/// Names in one of a manifest's dependency tables.
fn dependencies<'a>(manifest: &'a toml::Table, table: &str) -> Vec<&'a str> {
    let table = manifest.get(table).and_then(toml::Value::as_table);
    table.into_iter().flat_map(|table| table.keys().map(String::as_str)).collect()
}

/// Fails with all complaints at once.
fn none(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}

#[test]
fn crates_depend_on_lower_ones_only() {
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut complaints = Vec::new();
    for (name, (_, manifest)) in manifests() {
        let Some(own) = rank(&name) else {
            complaints.push(format!("{name} has no place in ORDER"));
            continue;
        };
        for dependency in dependencies(&manifest, "dependencies") {
            if dependency.starts_with("blockraft") && rank(dependency).is_none_or(|r| r >= own) {
                complaints.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    none("dependencies run one way (ARCHITECTURE.md, code map)", complaints);
}

#[test]
fn engines_stay_at_home() {
    let mut complaints = Vec::new();
    for (name, (_, manifest)) in manifests() {
        for (engine, homes) in HOMES {
            if dependencies(&manifest, "dependencies").contains(&engine)
                && !homes.contains(&name.as_str())
            {
                complaints.push(format!("{name} depends on {engine}, whose homes are {homes:?}"));
            }
        }
    }
    none("an engine is reached through its home crate's door", complaints);
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let lacking = manifests().into_iter().filter(|(_, (_, manifest))| {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        inherits.and_then(toml::Value::as_bool) != Some(true)
    });
    let complaints = lacking.map(|(name, _)| name).collect();
    none("`[lints] workspace = true` is missing", complaints);
}

#[test]
fn every_library_explains_itself() {
    let mut complaints = Vec::new();
    for (name, (folder, _)) in manifests() {
        let path = format!("{folder}/src/lib.rs");
        if !root().join(&path).exists() {
            continue;
        }
        let source = read(&path);
        let doc: Vec<&str> = source.lines().take_while(|line| line.starts_with("//!")).collect();
        for word in ["Door", "Invariants"] {
            if !doc.iter().any(|line| line.contains(word)) {
                complaints.push(format!("{name}: no word on {word}"));
            }
        }
    }
    none("a lib.rs says purpose, door, invariants and terms", complaints);
}

#[test]
fn pure_crates_do_not_act() {
    const ACTS: [&str; 8] = [
        "async fn",
        ".await",
        "std::fs",
        "std::net",
        "std::thread",
        "Instant::now",
        "SystemTime::now",
        "thread_rng",
    ];
    let mut complaints = Vec::new();
    for file in files_ending(".rs") {
        if !PURE.iter().any(|name| file.starts_with(&format!("crates/{name}/src/"))) {
            continue;
        }
        for (number, line) in shipped_lines(&read(&file)) {
            for act in ACTS.iter().filter(|act| line.contains(**act)) {
                complaints.push(format!("{file}:{number}: {act}"));
            }
        }
    }
    none("pure crates never await, read a clock, draw randomness or open a file", complaints);
}

#[test]
fn only_storage_opens_files() {
    let mut complaints = Vec::new();
    for file in files_ending(".rs") {
        let bound = file.starts_with("crates/")
            && file.contains("/src/")
            && !file.starts_with("crates/storage/")
            && !file.contains("/tests/")
            && !file.ends_with("/tests.rs")
            && !SNAPSHOT_STREAMS.contains(&file.as_str());
        if !bound {
            continue;
        }
        for (number, line) in shipped_lines(&read(&file)) {
            for act in ["File::open", "File::create", "OpenOptions", "fs::write", "fs::read"] {
                if line.contains(act) {
                    complaints.push(format!("{file}:{number}: {act}"));
                }
            }
        }
    }
    none("files are opened in crates/storage, or by the binaries", complaints);
}

/// Numbered lines without comments, up to the file's test module.
fn shipped_lines(source: &str) -> Vec<(usize, String)> {
    let is_tests_file = |line: &&str| line.trim() == "#[cfg(test)]";
    let shipped = source.lines().take_while(|line| !is_tests_file(line));
    shipped
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("").to_owned()))
        .collect()
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Spelled in halves, so that this file does not accuse itself.
    let left = ["#[ign", "tod", "unimplem", "db"].into_iter();
    let words: Vec<String> =
        left.zip(["ore", "o!(", "ented!(", "g!("]).map(|(a, b)| format!("{a}{b}")).collect();
    let mut complaints = Vec::new();
    for file in files_ending(".rs") {
        for (number, line) in read(&file).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    none("no ignored tests, no stubs: assert today's behaviour and say what is wrong", complaints);
}

#[test]
fn files_do_not_grow_without_end() {
    let mut complaints = Vec::new();
    for file in files_ending(".rs") {
        let lines = read(&file).lines().count();
        let listed = LONG_FILES.iter().find(|(name, _)| *name == file);
        let ceiling = listed.map_or(LINES_MAX, |(_, ceiling)| *ceiling);
        if lines > ceiling {
            complaints.push(format!("{file}: {lines} lines, at most {ceiling}"));
        }
    }
    none("one file, one subject: look twice, then split it", complaints);
}

#[test]
fn a_document_has_one_title() {
    let mut complaints = Vec::new();
    for file in files_ending(".md") {
        let source = read(&file);
        let mut in_code = false;
        let mut titles = 0;
        for line in source.lines() {
            in_code ^= line.starts_with("```");
            titles += usize::from(!in_code && line.starts_with("# "));
        }
        if titles != 1 || !source.starts_with("# ") {
            complaints.push(format!("{file}: {titles} titles"));
        }
    }
    none("a document begins with its only title", complaints);
}

#[test]
fn links_and_named_places_exist() {
    let mut complaints = Vec::new();
    for file in files_ending(".md") {
        let folder = root().join(&file).parent().expect("a file has a folder").to_owned();
        let source = read(&file);
        for part in source.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or("");
            let path = target.split('#').next().unwrap_or("");
            let local = !path.is_empty() && !path.contains("://");
            if local && !folder.join(path).exists() {
                complaints.push(format!("{file}: link to {path}"));
            }
        }
    }
    const PLACES: [&str; 9] =
        ["crates/", "bin/", "bench/", "docs/", "tests/", "etc/", "genesis/", "rpc-spec/", ".ci/"];
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for word in read(file).split('`').skip(1).step_by(2) {
            let named = PLACES.iter().any(|place| word.starts_with(place));
            if named && !root().join(word).exists() {
                complaints.push(format!("{file}: `{word}`"));
            }
        }
    }
    none("the map is true", complaints);
}

#[test]
fn the_architecture_fits_in_an_hour() {
    let document = read("ARCHITECTURE.md");
    assert!(document.lines().count() <= 250, "ARCHITECTURE.md has more than 250 lines");
    let unnamed = manifests().into_values().map(|(folder, _)| folder);
    let complaints = unnamed.filter(|folder| !document.contains(&format!("`{folder}`"))).collect();
    none("ARCHITECTURE.md does not mention", complaints);
}

#[test]
fn decisions_are_numbered() {
    let decisions = files().into_iter().filter(|name| name.starts_with("docs/decisions/"));
    let mut complaints = Vec::new();
    for (index, file) in decisions.enumerate() {
        let number = format!("{:04}", index + 1);
        let name = file.trim_start_matches("docs/decisions/");
        if !name.starts_with(&number) || !read(&file).starts_with(&format!("# {number}: ")) {
            complaints.push(format!("{file}: expected number {number}, in name and title"));
        }
    }
    none("decisions count up from 0001", complaints);
}

#[test]
fn no_machine_is_named() {
    // Spelled in halves, so that this file does not accuse itself.
    let halves =
        [("/ro", "ot/"), ("/ho", "me/"), ("/wo", "rk/"), ("npmjs", ".org"), ("pythonhos", "ted")];
    let words: Vec<String> = halves.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut complaints = Vec::new();
    for file in files() {
        let Ok(source) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in source.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    let lock = read("Cargo.lock");
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    for source in sources.filter(|s| !s.contains("registry+https://github.com/rust-lang/")) {
        complaints.push(format!("Cargo.lock: {source}"));
    }
    if read("tests/clients/package-lock.json").contains("\"resolved\"") {
        complaints.push("tests/clients/package-lock.json: resolved addresses".to_owned());
    }
    none("paths and hosts of one machine stay out of the tree", complaints);
}
