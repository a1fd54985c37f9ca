//! The public request and response cases on the chain that they were written for, by the rules of their
//! runner: everything in an answer counts but the texts of errors.

use crate::{
    files::{errors, every_fork},
    server::{Server, engine_call, free_port},
};
use blockraft_node::JwtSecret;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Methods of the cases that are not served yet. What is served is compared, listed here or not.
const NOT_SERVED: [&str; 7] = [
    "debug_traceBlockByHash",
    "debug_traceBlockByNumber",
    "debug_traceTransaction",
    "eth_capabilities",
    "eth_simulateV1",
    "testing_buildBlockV1",
    "testing_commitBlockV1",
];

const METHOD_NOT_FOUND: i64 = -32601;

/// One `.io` file: requests with the answers that are expected.
struct Case {
    name: String,
    /// Only the shape of an answer is prescribed.
    shape_only: bool,
    exchanges: Vec<(String, Value)>,
}

fn cases(folder: &Path) -> Vec<Case> {
    let mut files: Vec<PathBuf> = Vec::new();
    for method in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if method.is_dir() {
            files.extend(fs::read_dir(method).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // The pool fills up from case to case.
    files.sort();
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "io"))
        .map(|f| case(f))
        .collect()
}

fn case(file: &Path) -> Case {
    let text = fs::read_to_string(file).unwrap();
    let mut exchanges: Vec<(String, Value)> = Vec::new();
    for line in text.lines() {
        if let Some(request) = line.strip_prefix(">> ") {
            exchanges.push((request.to_owned(), Value::Null));
        } else if let Some(answer) = line.strip_prefix("<< ") {
            exchanges.last_mut().unwrap().1 = serde_json::from_str(answer).unwrap();
        }
    }
    let method = file.parent().unwrap().file_name().unwrap().to_string_lossy();
    let name = format!("{method}/{}", file.file_stem().unwrap().to_string_lossy());
    Case { name, shape_only: text.contains("speconly:"), exchanges }
}

/// Without the texts of errors, wherever both sides have one.
fn strip(got: &mut Value, expected: &mut Value) {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            if let (Some(Value::Object(got)), Some(Value::Object(expected))) =
                (got.get_mut("error"), expected.get_mut("error"))
                && got.contains_key("message")
                && expected.contains_key("message")
            {
                got.remove("message");
                expected.remove("message");
            }
            for (key, got) in got {
                if let Some(expected) = expected.get_mut(key) {
                    strip(got, expected);
                }
            }
        }
        (Value::Array(got), Value::Array(expected)) => {
            got.iter_mut().zip(expected).for_each(|(got, expected)| strip(got, expected));
        }
        _ => {}
    }
}

/// Whether both are results of one kind, an object's fields included; nothing and `null` are the same.
/// Senders and nonces that name entries are no fields: a pool may hold more than it did there.
fn same_shape(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            let named = |fields: &serde_json::Map<String, Value>| {
                let known = fields.iter().filter(|(_, value)| !value.is_null());
                known.map(|(key, _)| key.clone()).collect::<Vec<_>>()
            };
            let mut keys = named(got);
            let is_entry = |key: &str| key.starts_with("0x") || key.parse::<u64>().is_ok();
            keys.retain(|key| expected.contains_key(key) || !is_entry(key));
            keys == named(expected) && keys.iter().all(|key| same_shape(&got[key], &expected[key]))
        }
        (Value::Array(got), Value::Array(expected)) => match expected.first() {
            Some(expected) => got.iter().all(|got| same_shape(got, expected)),
            None => true,
        },
        (got, expected) => std::mem::discriminant(got) == std::mem::discriminant(expected),
    }
}

/// Runs a case; `None` where its method is not served.
fn run(server: &Server, case: &Case) -> Option<Result<(), String>> {
    for (request, expected) in &case.exchanges {
        let (mut got, mut expected) = (server.post(request), expected.clone());
        if got["error"]["code"] == METHOD_NOT_FOUND {
            return None;
        }
        strip(&mut got, &mut expected);
        let shaped = case.shape_only && got.get("result").is_some();
        let equal = match shaped && expected.get("result").is_some() {
            true => same_shape(&got["result"], &expected["result"]),
            false => shaped || got == expected,
        };
        if !equal {
            return Some(Err(difference(&got, &expected, "")));
        }
    }
    Some(Ok(()))
}

/// The first place where two answers differ.
fn difference(got: &Value, expected: &Value, at: &str) -> String {
    match (got, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: Vec<&String> =
                a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
            let differ = keys.into_iter().find(|key| a.get(*key) != b.get(*key));
            let key = differ.map_or("", String::as_str);
            let none = Value::String("<nothing>".to_owned());
            let (a, b) = (a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none));
            difference(a, b, &format!("{at}.{key}"))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let index = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or_default();
            difference(&a[index], &b[index], &format!("{at}[{index}]"))
        }
        (a, b) => {
            let short = |value: &Value| value.to_string().chars().take(120).collect::<String>();
            format!("{at}: {} instead of {}", short(a), short(b))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_cases_of_what_is_served_are_answered_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    let output = chain.import(&chain.file(), &datadir, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let secret_file = dir.path().join("secret");
    fs::write(&secret_file, "73".repeat(32)).unwrap();
    let port = free_port();
    let authrpc =
        ["--authrpc.port", &port.to_string(), "--authrpc.jwtsecret", secret_file.to_str().unwrap()];
    let server = Server::dev(&datadir, &authrpc);
    // A consensus client has named the head, as before the runner's first case.
    let text = fs::read_to_string(chain.folder.join("headfcu.json")).unwrap();
    let update: Value = serde_json::from_str(&text).unwrap();
    let secret = JwtSecret::from_hex(&"73".repeat(32)).unwrap();
    let method = update["method"].as_str().unwrap();
    let answer = engine_call(port, &secret, method, update["params"].clone()).await;
    assert_eq!(answer["payloadStatus"]["status"], "VALID");

    let (mut passed, mut wrong) = (0, Vec::new());
    let mut not_served: BTreeMap<String, u32> = BTreeMap::new();
    let cases = cases(&chain.folder);
    for case in &cases {
        match run(&server, case) {
            Some(Ok(())) => passed += 1,
            Some(Err(problem)) => wrong.push(format!("{}{problem}", case.name)),
            None => {
                *not_served.entry(case.name.split('/').next().unwrap().to_owned()).or_default() += 1
            }
        }
    }
    println!("{passed} of {} pass; not served: {not_served:?}", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let unknown: Vec<_> = not_served.keys().filter(|m| !NOT_SERVED.contains(&m.as_str())).collect();
    assert!(unknown.is_empty(), "served before: {unknown:?}");
    assert!(passed >= 80, "only {passed} cases were compared");
}
