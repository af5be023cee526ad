//! `tune`: how large should the tiers be for this traffic?
//!
//! Draws the hit ratio over capacity from a sample of the trace (`simulate`), finds the memory past which more brings little,
//! and the disk from which the wanted share of requests is answered without the source. With `--report` the curves go into one
//! HTML page that needs nothing from outside.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;
use serde_json::{Value, json};

use crate::args::Tune;
use crate::report::{self, Failure, Outcome, Output};
use crate::simulate::{Point, Sample};
use crate::trace::Trace;

/// How many capacities are tried.
const POINTS: u32 = 16;

/// No memory tier is recommended below this.
const LEAST_MEMORY: u64 = 1 << 20;

/// Room on disk beyond the entries, for segments that are partly dead: 5/4.
const DISK_SLACK: (u64, u64) = (5, 4);

pub(crate) fn run(ask: &Tune, out: &Output) -> Outcome {
    report::say("reading the trace");
    let trace = Trace::open(ask.trace.as_deref(), ask.limit)?;
    let sample = Sample::of(&trace, ask.sample, ask.value_size);
    report::say("simulating");
    let bar = report::progress("capacities", u64::from(POINTS));
    let curve = sample.curve(POINTS, || bar.inc(1));
    bar.finish_and_clear();
    let advice = Advice::of(&curve, sample.highest(), ask.target_hit_ratio);
    if let Some(path) = &ask.report {
        write_page(path, &trace, &sample, &curve, &advice)?;
    }
    show(out, &trace, &sample, &curve, &advice, ask.report.as_deref())?;
    out.object(&object(ask, &trace, &sample, &curve, &advice))
}

/// What to configure.
struct Advice {
    memory: u64,
    memory_ratio: f64,
    /// 0: memory alone does it.
    disk: u64,
    total_ratio: f64,
    reachable: bool,
    why: String,
}

impl Advice {
    fn of(curve: &[Point], highest: f64, target: f64) -> Self {
        let reachable = highest >= target;
        let wanted = if reachable { target } else { highest * 0.995 };
        let last = curve.last().copied().unwrap_or(Point { bytes: 0, entries: 0, lru: 0.0, cache: 0.0 });
        let knee = knee(curve).unwrap_or(last);
        let (memory, total, why) = match first_with(curve, wanted) {
            Some(enough) if enough.bytes <= knee.bytes.saturating_mul(2) => {
                (enough, enough, "memory alone answers the wanted share")
            }
            Some(enough) => (knee, enough, "past this memory each doubling brings little, so the rest belongs on disk"),
            None => (knee, last, "only a disk that holds everything comes near"),
        };
        let why = if reachable { why.to_owned() } else { unreachable_target(target, highest) + why };
        Self {
            memory: memory.bytes.max(LEAST_MEMORY),
            memory_ratio: memory.cache,
            disk: if total.bytes > memory.bytes { total.bytes / DISK_SLACK.1 * DISK_SLACK.0 } else { 0 },
            total_ratio: total.cache,
            reachable,
            why,
        }
    }
}

fn unreachable_target(target: f64, highest: f64) -> String {
    let (target, highest) = (report::percent(target), report::percent(highest));
    format!("{target} cannot be reached, because first requests alone leave at most {highest}; ")
}

/// The smallest capacity that reaches a hit ratio.
fn first_with(curve: &[Point], ratio: f64) -> Option<Point> {
    curve.iter().copied().find(|point| point.cache >= ratio)
}

/// The point farthest above the line from the first to the last, over the logarithm of the capacity.
fn knee(curve: &[Point]) -> Option<Point> {
    let (first, last) = (curve.first()?, curve.last()?);
    let width = (last.bytes as f64 / first.bytes as f64).ln().max(f64::MIN_POSITIVE);
    let height = (last.cache - first.cache).max(f64::MIN_POSITIVE);
    let above = |point: &Point| (point.cache - first.cache) / height - (point.bytes as f64 / first.bytes as f64).ln() / width;
    curve.iter().copied().max_by(|a, b| above(a).total_cmp(&above(b)))
}

fn show(out: &Output, trace: &Trace, sample: &Sample, curve: &[Point], advice: &Advice, page: Option<&Path>) -> Outcome {
    if out.is_json() {
        return Ok(());
    }
    let mut table = report::table(["capacity", "entries", "LRU hits", "cache hits", "cache misses"]);
    for point in curve {
        table.add_row([
            report::bytes(point.bytes),
            report::count(point.entries),
            report::percent(point.lru),
            report::percent(point.cache),
            report::percent(1.0 - point.cache),
        ]);
    }
    out.text(format_args!(
        "{}: {} requests, {} keys, {}; {} of the keys followed\n{table}",
        trace.name,
        report::count(trace.requests.len() as u64),
        report::count(trace.unique()),
        report::bytes(sample.footprint),
        report::percent(sample.share),
    ))?;
    let mut tiers = report::table(["tier", "capacity", "hits up to here"]);
    tiers.add_row(["memory".to_owned(), report::bytes(advice.memory), report::percent(advice.memory_ratio)]);
    if advice.disk > 0 {
        tiers.add_row(["disk".to_owned(), report::bytes(advice.disk), report::percent(advice.total_ratio)]);
    }
    out.text(format_args!("{tiers}\n{}", sentence(&advice.why)))?;
    page.map_or(Ok(()), |page| out.text(format_args!("page with the curves: {}", page.display())))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

fn object(ask: &Tune, trace: &Trace, sample: &Sample, curve: &[Point], advice: &Advice) -> Value {
    let points = curve.iter().map(|point| {
        json!({ "bytes": point.bytes, "entries": point.entries, "lru_hit_ratio": point.lru, "cache_hit_ratio": point.cache })
    });
    json!({
        "trace": trace.name,
        "requests": trace.requests.len(),
        "unique_keys": trace.unique(),
        "unique_bytes": sample.footprint,
        "sampled_share": sample.share,
        "highest_hit_ratio": sample.highest(),
        "target_hit_ratio": ask.target_hit_ratio,
        "reachable": advice.reachable,
        "curve": points.collect::<Vec<_>>(),
        "recommendation": {
            "memory_bytes": advice.memory,
            "memory_hit_ratio": advice.memory_ratio,
            "disk_bytes": advice.disk,
            "total_hit_ratio": advice.total_ratio,
            "why": advice.why,
        },
        "report": ask.report.as_ref().map(|path| path.display().to_string()),
    })
}

/// One page: the recommendation, the miss-ratio curve, the hit-ratio curve, the numbers.
fn write_page(path: &Path, trace: &Trace, sample: &Sample, curve: &[Point], advice: &Advice) -> Outcome {
    let plotted = |what: &str, of: fn(f64) -> f64| {
        plot(curve, advice, what, of).map_err(|cause| Failure::said(format!("cannot draw the {what} curve: {cause}")))
    };
    let name = escape(&trace.name);
    let mut rows = String::new();
    for point in curve {
        let (bytes, entries) = (report::bytes(point.bytes), report::count(point.entries));
        let (lru, cache) = (report::percent(point.lru), report::percent(point.cache));
        let _ = writeln!(rows, "<tr><td>{bytes}<td>{entries}<td>{lru}<td>{cache}");
    }
    let disk = if advice.disk > 0 { format!(", disk {}", report::bytes(advice.disk)) } else { String::new() };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\n<style>body{{font:16px/1.5 sans-serif;max-width:60em;\
margin:2em auto;padding:0 1em}}svg{{max-width:100%;height:auto}}td,th{{text-align:right;padding:.1em 1em;\
font-variant-numeric:tabular-nums}}</style>\n<h1>{name}</h1>\n<p>{} requests, {} keys, {}; {} of the keys followed.</p>\n\
<p><b>Memory {}{disk}</b>: {} of the requests answered, {} from memory. {}</p>\n<h2>Misses over capacity</h2>\n{}\n\
<h2>Hits over capacity</h2>\n{}\n<table><tr><th>capacity<th>entries<th>LRU hits<th>cache hits\n{rows}</table>\n</html>\n",
        report::count(trace.requests.len() as u64),
        report::count(trace.unique()),
        report::bytes(sample.footprint),
        report::percent(sample.share),
        report::bytes(advice.memory),
        report::percent(advice.total_ratio),
        report::percent(advice.memory_ratio),
        escape(&sentence(&advice.why)),
        plotted("miss ratio", |hits| 1.0 - hits)?,
        plotted("hit ratio", |hits| hits)?,
    );
    std::fs::write(path, page).map_err(|cause| Failure::said(format!("report {}: cannot be written ({cause})", path.display())))
}

/// The marks of the recommended capacities; a disk that holds more than the trace has is beyond the axis and has none.
const MEMORY: RGBColor = RGBColor(0, 128, 64);
const DISK: RGBColor = RGBColor(176, 96, 0);

/// Both policies and the recommended capacities as SVG.
fn plot(curve: &[Point], advice: &Advice, what: &str, of: fn(f64) -> f64) -> Result<String, Box<dyn std::error::Error>> {
    // The axis counts MiB, so that the powers of ten on it are round numbers.
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (least, most) = curve.first().zip(curve.last()).map_or((1.0, 2.0), |(first, last)| (mib(first.bytes), mib(last.bytes)));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 420)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d((least..most.max(least * 1.01)).log_scale(), 0.0..1.0)?;
        chart
            .configure_mesh()
            .x_desc("capacity")
            .y_desc(what)
            .x_label_formatter(&|mib| format!("{mib} MiB"))
            .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        for (label, color, ratio) in
            [("aurum-cache", BLUE, (|point: &Point| point.cache) as fn(&Point) -> f64), ("LRU", RED, |point: &Point| point.lru)]
        {
            let line = curve.iter().map(|point| (mib(point.bytes), of(ratio(point))));
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        }
        for (label, bytes, color) in [("memory", advice.memory, MEMORY), ("disk", advice.disk, DISK)] {
            let at = mib(bytes);
            if bytes > 0 && at <= most {
                chart
                    .draw_series(DashedLineSeries::new([(at, 0.0), (at, 1.0)], 6, 4, color.stroke_width(2)))?
                    .label(format!("{label} {}", report::bytes(bytes)))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
            }
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 14))
            // The curve ends in the other corner.
            .position(if of(1.0) > of(0.0) { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight })
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
