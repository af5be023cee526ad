//! How the program speaks: results on stdout, as tables for people or one JSON object for programs; progress on stderr and
//! only to a terminal; failures as one sentence.
//!
//! Nothing here panics when the other end of a pipe is gone: that is [`Failure::NobodyReads`], and the program ends quietly.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// Why a verb ended early.
pub(crate) enum Failure {
    /// One sentence that names the thing and what to do.
    Said(String),
    /// The results have been printed and something in them is wrong (`doctor`).
    Found,
    /// Whoever read our stdout has gone.
    NobodyReads,
}

/// What a verb returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn said(sentence: impl Into<String>) -> Self {
        Self::Said(sentence.into())
    }
}

impl From<aurum_cache::Error> for Failure {
    fn from(error: aurum_cache::Error) -> Self {
        Self::Said(error.to_string())
    }
}

/// Where results go.
pub(crate) struct Output {
    /// One JSON object instead of text.
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line or a block of text, left out when the answer is JSON.
    pub(crate) fn text(&self, text: impl Display) -> Outcome {
        if self.json { Ok(()) } else { write_out(&format!("{text}\n")) }
    }

    /// The whole answer as one JSON object, left out when the answer is text.
    pub(crate) fn object(&self, object: &Value) -> Outcome {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(object).map_err(|cause| Failure::said(format!("cannot write JSON: {cause}")))?;
        write_out(&(text + "\n"))
    }
}

fn write_out(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
        Err(cause) => Err(Failure::said(format!("cannot write the results to stdout: {cause}"))),
    }
}

/// A line on stderr. If that is gone too there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A bar on stderr for `total` steps of `what`; invisible unless stderr is a terminal.
pub(crate) fn progress(what: &'static str, total: u64) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len}  {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// A table whose first column is text and whose others are numbers.
pub(crate) fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table of text only.
pub(crate) fn text_table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    table
}

/// `1234567` as `1 234 567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `0.98765` as `98.77 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Bytes in the unit that reads best.
pub(crate) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A time in the unit that reads best, with three digits.
pub(crate) fn time(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// A long time in whole seconds: `3d 4h 5m 6s`.
pub(crate) fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// `part` of `whole`; zero of nothing is zero.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Times of one kind of call, 1 ns to 10 s, two digits exact.
pub(crate) struct Times {
    histogram: Option<Histogram<u64>>,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, 10_000_000_000, 2).ok() }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    pub(crate) fn at(&self, quantile: f64) -> Duration {
        let found = |histogram: &Histogram<u64>| if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile) };
        Duration::from_nanos(self.histogram.as_ref().map_or(0, found))
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.as_ref().map_or(0.0, Histogram::mean) as u64)
    }

    /// Count, p50, p90, p99, p99.9 and the longest, as the columns of a table.
    pub(crate) fn columns(&self) -> [String; 5] {
        if self.count() == 0 {
            return std::array::from_fn(|_| "-".to_owned());
        }
        [0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| time(self.at(quantile)))
    }

    /// The same as an object: `count`, `p50_ns`, `p90_ns`, `p99_ns`, `p999_ns`, `max_ns`.
    pub(crate) fn object(&self) -> Value {
        let ns = |quantile| self.at(quantile).as_nanos() as u64;
        json!({ "count": self.count(), "p50_ns": ns(0.5), "p90_ns": ns(0.9), "p99_ns": ns(0.99), "p999_ns": ns(0.999), "max_ns": ns(1.0) })
    }
}

/// A stopwatch. The runtime's: this program reads no clock of its own.
pub(crate) struct Stopwatch(tokio::time::Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
