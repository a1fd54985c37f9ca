//! The one place that writes to standard output and standard error.
#![expect(clippy::print_stdout, reason = "a command line prints")]

use clap::ValueEnum;
use serde::Serialize;

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Prints a result.
pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// Prints a result as JSON.
pub(crate) fn print_json(value: &impl Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("results have string keys"));
}

/// Tells on standard error what is going on; progress never mixes with results.
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Prints why a command failed.
pub(crate) fn error(error: &anyhow::Error, format: OutputFormat) {
    match format {
        OutputFormat::Text => eprintln!("error: {error:#}"),
        OutputFormat::Json => {
            eprintln!("{}", serde_json::json!({ "error": format!("{error:#}") }));
        }
    }
}
