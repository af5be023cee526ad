//! Rows, the bar each is held against, and how they are printed.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// What a figure must be, and what it might be.
#[derive(Clone, Copy)]
pub struct Bar {
    /// The least that is asked for.
    pub must: f64,
    /// What the parts would allow.
    pub stretch: f64,
    /// More is better; otherwise less is.
    pub is_floor: bool,
}

impl Bar {
    /// A figure that must not be above.
    pub const fn at_most(must: f64, stretch: f64) -> Self {
        Self { must, stretch, is_floor: false }
    }

    /// A figure that must not be below.
    pub const fn at_least(must: f64, stretch: f64) -> Self {
        Self { must, stretch, is_floor: true }
    }

    fn holds(self, figure: f64, bar: f64) -> bool {
        if self.is_floor { figure >= bar } else { figure <= bar }
    }

    fn verdict(self, figure: f64) -> &'static str {
        match () {
            () if self.holds(figure, self.stretch) => "stretch",
            () if self.holds(figure, self.must) => "must",
            () => "MISSED",
        }
    }

    fn text(self) -> String {
        let sign = if self.is_floor { "≥" } else { "≤" };
        format!("{sign} {} / {}", self.must, self.stretch)
    }
}

/// One line of a report.
pub struct Row {
    /// What was done.
    pub name: String,
    /// The figure that is judged, mostly ours over the best peer's.
    pub figure: f64,
    /// What it is held against, if anything.
    pub bar: Option<Bar>,
    /// What the figure is made of, in words and in the order of the columns.
    pub columns: Vec<String>,
    /// The same for machines.
    pub data: Value,
}

/// How results are printed.
#[derive(Clone, Copy)]
pub struct Output {
    /// One JSON object instead of a table.
    pub json: bool,
    /// The table as Markdown.
    pub markdown: bool,
}

impl Output {
    /// Prints the rows. `headings` are those of [`Row::columns`]; before them stand name, figure and bar.
    pub fn print(self, title: &str, headings: &[&str], rows: &[Row]) {
        if self.json {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            println!("{}", json!({ "title": title, "rows": rows }));
            return;
        }
        let mut table = Table::new();
        table.load_preset(if self.markdown { presets::ASCII_MARKDOWN } else { presets::UTF8_BORDERS_ONLY });
        table.set_header(["what", "figure", "must / stretch", ""].iter().chain(headings));
        for row in rows {
            let mut cells = vec![row.name.clone(), format!("{:.3}", row.figure)];
            cells.push(row.bar.map_or_else(String::new, Bar::text));
            cells.push(row.bar.map_or_else(String::new, |bar| bar.verdict(row.figure).to_owned()));
            cells.extend(row.columns.iter().cloned());
            table.add_row(cells);
        }
        println!("{title}\n\n{table}\n");
    }
}

impl Row {
    fn json(&self) -> Value {
        let bar = self.bar.map(|bar| json!({ "must": bar.must, "stretch": bar.stretch, "verdict": bar.verdict(self.figure) }));
        json!({ "what": self.name, "figure": self.figure, "bar": bar, "data": self.data })
    }
}

/// To standard error: what is being done.
pub fn say(text: &str) {
    eprintln!("{text}");
}
