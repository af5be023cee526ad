//! The program `aurum-cache`: see the cache at work, feed it real traffic, size it, look into its folder.
//!
//! A guest like any other: it uses the library's public face and nothing below it. `args` says what can be asked, one file a
//! verb answers (`demo`, `replay`, `tune`, `inspect`, `bench`, `doctor`), `trace` reads request logs (`keys` holds their keys), and `report` is how all
//! of them speak: results on stdout, progress and complaints on stderr.
//!
//! Exit status: 0 done, 1 it failed or `doctor` found something, 2 the arguments were wrong. A reader that closes the pipe
//! early (`| head`) is no error.

mod args;
mod bench;
mod demo;
mod doctor;
mod inspect;
mod keys;
mod replay;
mod report;
mod simulate;
mod trace;
mod tune;
mod value;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use report::{Failure, Outcome, Output};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refused) => return refuse(&refused),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return complain(&format!("no threads for the runtime ({cause}); raise the process limit")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::FAILURE,
        Err(Failure::Said(sentence)) => complain(&sentence),
    }
}

async fn run(args: Args) -> Outcome {
    let out = Output::new(args.json);
    let work = async {
        match args.verb {
            Verb::Demo(ask) => demo::run(&ask, &out).await,
            Verb::Replay(ask) => replay::run(&ask, &out).await,
            Verb::Tune(ask) => tune::run(&ask, &out),
            Verb::Inspect(ask) => inspect::run(&ask, &out),
            Verb::Bench(ask) => bench::run(&ask, &out).await,
            Verb::Doctor(ask) => doctor::run(&ask, &out).await,
        }
    };
    work.await
}

/// Help and version go to stdout; anything else that clap says becomes one sentence.
fn refuse(refused: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind as Kind;
    let text = refused.render().to_string();
    match refused.kind() {
        Kind::DisplayHelp | Kind::DisplayVersion => match Output::new(false).text(text.trim_end()) {
            Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Kind::DisplayHelpOnMissingArgumentOrSubcommand => {
            report::say(text.trim_end());
            ExitCode::from(2)
        }
        _ => {
            let told =
                text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
            let sentence: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
            report::say(&format!("{}; see --help", sentence.join(" ")));
            ExitCode::from(2)
        }
    }
}

fn complain(sentence: &str) -> ExitCode {
    report::say(&format!("error: {sentence}"));
    ExitCode::FAILURE
}
