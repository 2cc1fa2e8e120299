//! Figures as drawings, for the documentation: plain SVG that is readable on light and on dark pages.

use crate::{Contender, figures};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::{fmt::Write, fs, path::Path};

/// In pixels: the names on the left, the longest bar, room for the number behind it, a row, a heading.
const NAMES: f64 = 190.0;
const LONGEST: f64 = 430.0;
const NUMBER: f64 = 80.0;
const ROW: f64 = 26.0;
const HEADING: f64 = 40.0;
const BAR: f64 = 16.0;

/// What is drawn below a heading: a bar a row.
struct Panel {
    title: String,
    rows: Vec<(String, f64)>,
    digits: usize,
}

/// A field of a run as it is shown: what it comes to with the run's number of events.
struct Shown {
    title: &'static str,
    field: &'static str,
    value: fn(f64, f64) -> f64,
    digits: usize,
}

const SHOWN: [Shown; 3] = [
    Shown { title: "events a second (more is better)", field: "seconds", value: |seconds, events| events / seconds, digits: 0 },
    Shown { title: "CPU-seconds a million events (less is better)", field: "cpu_s", value: |cpu, events| cpu * 1e6 / events, digits: 1 },
    Shown { title: "peak memory in MB (less is better)", field: "peak_rss_mb", value: |mb, _| mb, digits: 0 },
];

impl Shown {
    /// Named runs, those left out that have no such field. Some take only a part of the events, and say so.
    fn panel(&self, title: String, runs: &[(String, &Value)], events: f64) -> Panel {
        let field = |run: &Value, field: &str| run.get(field).and_then(Value::as_f64);
        let value = |run: &Value| Some((self.value)(field(run, self.field)?, field(run, "events").unwrap_or(events)));
        let rows = runs.iter().filter_map(|(name, run)| Some((name.clone(), value(run)?)));
        Panel { title, rows: rows.collect(), digits: self.digits }
    }
}

/// Draws what the file of figures holds of the drain.
///
/// # Errors
/// When it holds nothing of it.
pub fn draw_drain(json: &Path, to: &Path) -> Result<()> {
    draw(json, to, drain)
}

/// Draws what the file of figures holds by users, products and state.
///
/// # Errors
/// When it holds nothing of it.
pub fn draw_scaling(json: &Path, to: &Path) -> Result<()> {
    draw(json, to, scaling)
}

fn draw(json: &Path, to: &Path, panels: fn(&Map<String, Value>) -> Result<Vec<Panel>>) -> Result<()> {
    let panels = panels(&figures::read(json)?).with_context(|| format!("drawing {}", json.display()))?;
    fs::write(to, svg(&panels)?).with_context(|| format!("writing {}", to.display()))?;
    println!("drawn into {}", to.display());
    Ok(())
}

/// A panel for each number, with a bar of each contender that ran.
fn drain(figures: &Map<String, Value>) -> Result<Vec<Panel>> {
    let events = figures.get("events").and_then(Value::as_f64).unwrap_or_default();
    let of = |c: &Contender| Some((c.title().to_owned(), figures.get("drain")?.get(c.key())?));
    let runs: Vec<_> = Contender::value_variants().iter().filter_map(of).collect();
    if runs.is_empty() || events <= 0.0 {
        bail!("there are no figures of the drain; run the benchmark without a part first");
    }
    Ok(SHOWN.iter().map(|shown| shown.panel(shown.title.to_owned(), &runs, events)).collect())
}

/// A panel for each contender and number, with a bar of each number of users and products and size of the state.
fn scaling(figures: &Map<String, Value>) -> Result<Vec<Panel>> {
    let part = figures.get("scaling").context("there are no figures by users and products; run the part `scaling` first")?;
    let events = part.get("events").and_then(Value::as_f64).unwrap_or_default();
    let all = part.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut panels = Vec::new();
    for contender in Contender::value_variants() {
        let runs: Vec<_> = all.iter().filter(|run| run["contender"] == contender.key()).map(|run| (size(run), run)).collect();
        if !runs.is_empty() {
            panels.extend(SHOWN.iter().map(|shown| shown.panel(format!("{}: {}", contender.title(), shown.title), &runs, events)));
        }
    }
    Ok(panels)
}

/// `5 M users, 200 k products`, or `10 GB on disk`.
fn size(run: &Value) -> String {
    let number = |field: &str| run.get(field).and_then(Value::as_u64).unwrap_or_default();
    let short = |number: u64| match number {
        1_000_000.. => format!("{} M", number / 1_000_000),
        1_000.. => format!("{} k", number / 1_000),
        _ => number.to_string(),
    };
    match number("state_mb") {
        0 => format!("{} users, {} products", short(number("users")), short(number("products"))),
        megabytes @ 1_000.. => format!("{} GB on disk", megabytes / 1_000),
        megabytes => format!("{megabytes} MB on disk"),
    }
}

fn svg(panels: &[Panel]) -> Result<String> {
    let width = NAMES + LONGEST + NUMBER;
    let height = panels.iter().map(|panel| HEADING + panel.rows.len() as f64 * ROW).sum::<f64>() + 10.0;
    let mut svg = String::new();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="13">
<style>text {{ fill: #24292f }} .bar {{ fill: #0969da }} @media (prefers-color-scheme: dark) {{ text {{ fill: #d1d7e0 }} .bar {{ fill: #4493f8 }} }}</style>"##
    )?;
    let mut y = 0.0;
    for Panel { title, rows, digits } in panels {
        writeln!(svg, r#"<text x="0" y="{}" font-weight="bold">{title}</text>"#, y + HEADING - 14.0)?;
        y += HEADING;
        let most = rows.iter().map(|(_, number)| *number).fold(f64::MIN_POSITIVE, f64::max);
        for (name, number) in rows {
            let (length, middle) = (LONGEST * number / most, y + BAR - 3.5);
            writeln!(svg, r#"<text x="{}" y="{middle}" text-anchor="end">{name}</text>"#, NAMES - 8.0)?;
            writeln!(svg, r#"<rect class="bar" x="{NAMES}" y="{y}" width="{length:.1}" height="{BAR}"/>"#)?;
            writeln!(svg, r#"<text x="{:.1}" y="{middle}">{}</text>"#, NAMES + length + 6.0, grouped(*number, *digits))?;
            y += ROW;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// `12,345.6`.
fn grouped(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drawn(panels: fn(&Map<String, Value>) -> Result<Vec<Panel>>, figures: Value) -> String {
        svg(&panels(figures.as_object().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn every_contender_that_ran_has_a_bar_in_each_panel_and_the_longest_is_the_most() {
        let figures = json!({"events": 1_000_000, "drain": {
            "copy": {"seconds": 10.0, "cpu_s": 3.6, "peak_rss_mb": 114}, "product": {"seconds": 40.0, "cpu_s": 604.0, "peak_rss_mb": 621},
            "streams": {"events": 300_000, "seconds": 50.0, "cpu_s": 108.0, "peak_rss_mb": 900},
        }});
        let svg = drawn(drain, figures);
        assert_eq!(svg.matches("<rect").count(), 3 * SHOWN.len());
        for said in [">100,000<", ">25,000<", ">6,000<", ">604.0<", ">360.0<", ">114<", "prefers-color-scheme: dark"] {
            assert!(svg.contains(said), "no {said} in {svg}");
        }
        assert_eq!(svg.matches(&format!(r#"width="{LONGEST:.1}""#)).count(), SHOWN.len());
    }

    #[test]
    fn each_size_of_the_work_has_a_bar_below_its_contender() {
        let run = |contender: &str, users: u64, products: u64, state_mb: u64, seconds: f64| json!({"contender": contender, "users": users, "products": products, "state_mb": state_mb, "seconds": seconds, "cpu_s": 8.0, "peak_rss_mb": 300});
        let runs = [
            run("bounded", 10_000, 1_000, 0, 4.0),
            run("bounded", 5_000_000, 200_000, 0, 5.0),
            run("bounded", 200_000, 20_000, 10_000, 8.0),
            run("product", 900, 100, 10, 100.0),
        ];
        let svg = drawn(scaling, json!({"scaling": {"events": 200_000, "runs": runs}}));
        assert_eq!(svg.matches("<rect").count(), 4 * SHOWN.len());
        for said in [
            ">10 k users, 1 k products<",
            ">5 M users, 200 k products<",
            ">10 GB on disk<",
            ">10 MB on disk<",
            ">50,000<",
            ">2,000<",
            ">40.0<",
        ] {
            assert!(svg.contains(said), "no {said} in {svg}");
        }
    }

    #[test]
    fn without_figures_it_says_what_to_run() {
        for (panels, run) in [(drain as fn(&_) -> _, "without a part"), (scaling, "`scaling`")] {
            let error = panels(&Map::new()).err().unwrap().to_string();
            assert!(error.contains(run), "{error}");
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [(7.0, 0), (999.94, 1), (1_476.4, 0), (1_234_567.0, 0)].map(|(n, d)| grouped(n, d)),
            ["7", "999.9", "1,476", "1,234,567"]
        );
    }
}
