//! What a program was asked: options by name, and what is left.
//!
//! By hand and not with the program's parser: the peers take long enough to build.

use std::fmt::Display;
use std::process::exit;
use std::str::FromStr;

use pico_args::Arguments;

use crate::report::Output;

/// The arguments of this process; each option is taken once, and what is left over is complained about.
pub struct Options(Arguments);

impl Options {
    /// Of this process. `--help` prints `help` and ends it.
    pub fn given(help: &str) -> Self {
        let mut given = Arguments::from_env();
        if given.contains(["-h", "--help"]) {
            println!(
                "{help}\n\n  --json            one JSON object instead of a table\n  --markdown        the table as Markdown\n  --test            only show that it runs"
            );
            exit(0);
        }
        Self(given)
    }

    /// Whether the option is there.
    pub fn has(&mut self, name: &'static str) -> bool {
        self.0.contains(name)
    }

    /// The value of an option, if it is there.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.0.opt_value_from_str(name).unwrap_or_else(|error| complain(&error))
    }

    /// The values of an option, separated by commas, if it is there.
    pub fn list<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<Vec<T>> {
        let text: String = self.value(name)?;
        Some(text.split(',').map(|part| part.parse().unwrap_or_else(|error| complain(&error))).collect())
    }

    /// How results are printed.
    pub fn output(&mut self) -> Output {
        Output { json: self.has("--json"), markdown: self.has("--markdown") }
    }

    /// What is no option. Ends the process if there is an option that nobody took.
    pub fn rest(self) -> Vec<String> {
        let rest: Vec<String> = self.0.finish().into_iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if let Some(unknown) = rest.iter().find(|part| part.starts_with('-')) {
            complain(&format!("{unknown}: no such option; see --help"));
        }
        rest
    }
}

/// Says what is wrong with the arguments, and ends the process.
pub fn complain(error: &dyn Display) -> ! {
    eprintln!("{error}");
    exit(2)
}
