//! The one place that writes to standard output.

use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Display;

/// What `-o` accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object, the last line of standard output.
    Json,
}

impl Format {
    /// The result of a command.
    #[expect(clippy::print_stdout, reason = "the result of a command goes to standard output")]
    pub(crate) fn result<T: Serialize + Display>(self, value: &T) {
        match self {
            Self::Text => println!("{value}"),
            Self::Json => println!(
                "{}",
                serde_json::to_string(value).expect("a report has string keys and finite numbers")
            ),
        }
    }

    /// What goes on meanwhile: to standard error, so that `-o json` stays parseable.
    pub(crate) fn note(self, text: impl Display) {
        eprintln!("{text}");
    }
}
