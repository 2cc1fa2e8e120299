//! The drain's figures as a drawing, for the documentation: plain SVG that is readable on light and on dark pages.

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

/// A number of each contender.
struct Panel {
    title: &'static str,
    field: &'static str,
    value: fn(f64, f64) -> f64,
    digits: usize,
}

const PANELS: [Panel; 3] = [
    Panel { title: "events a second (more is better)", field: "seconds", value: |seconds, events| events / seconds, digits: 0 },
    Panel { title: "CPU-seconds a million events (less is better)", field: "cpu_s", value: |cpu, events| cpu * 1e6 / events, digits: 1 },
    Panel { title: "peak memory in MB (less is better)", field: "peak_rss_mb", value: |mb, _| mb, digits: 0 },
];

/// Draws what the file of figures holds of the drain.
///
/// # Errors
/// When it holds nothing of it.
pub fn draw(json: &Path, to: &Path) -> Result<()> {
    let svg = svg(&figures::read(json)?).with_context(|| format!("drawing {}", json.display()))?;
    fs::write(to, svg).with_context(|| format!("writing {}", to.display()))?;
    println!("drawn into {}", to.display());
    Ok(())
}

fn svg(figures: &Map<String, Value>) -> Result<String> {
    let events = figures.get("events").and_then(Value::as_f64).unwrap_or_default();
    let contenders: Vec<_> = Contender::value_variants()
        .iter()
        .filter_map(|c| Some((c.title(), figures.get("drain")?.get(format!("{c:?}").to_lowercase())?)))
        .collect();
    if contenders.is_empty() || events <= 0.0 {
        bail!("there are no figures of the drain; run the benchmark without a part first");
    }
    let (width, panel) = (NAMES + LONGEST + NUMBER, HEADING + contenders.len() as f64 * ROW);
    let height = panel * PANELS.len() as f64 + 10.0;
    let mut svg = String::new();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="13">
<style>text {{ fill: #24292f }} .bar {{ fill: #0969da }} @media (prefers-color-scheme: dark) {{ text {{ fill: #d1d7e0 }} .bar {{ fill: #4493f8 }} }}</style>"##
    )?;
    let mut y = 0.0;
    for Panel { title, field, value, digits } in PANELS {
        writeln!(svg, r#"<text x="0" y="{}" font-weight="bold">{title}</text>"#, y + HEADING - 14.0)?;
        let field_of = |run: &Value, field: &str| run.get(field).and_then(Value::as_f64);
        // Some take only a part of the events, and say so.
        let value = |run: &Value| field_of(run, field).map(|number| value(number, field_of(run, "events").unwrap_or(events)));
        let most = contenders.iter().filter_map(|(_, run)| value(run)).fold(f64::MIN_POSITIVE, f64::max);
        for (n, (name, run)) in contenders.iter().enumerate() {
            let Some(number) = value(run) else { continue };
            let (top, length) = (y + HEADING + n as f64 * ROW, LONGEST * number / most);
            let middle = top + BAR - 3.5;
            writeln!(svg, r#"<text x="{}" y="{middle}" text-anchor="end">{name}</text>"#, NAMES - 8.0)?;
            writeln!(svg, r#"<rect class="bar" x="{NAMES}" y="{top}" width="{length:.1}" height="{BAR}"/>"#)?;
            writeln!(svg, r#"<text x="{:.1}" y="{middle}">{}</text>"#, NAMES + length + 6.0, grouped(number, digits))?;
        }
        y += panel;
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

    #[test]
    fn every_contender_that_ran_has_a_bar_in_each_panel_and_the_longest_is_the_most() {
        let figures = json!({"events": 1_000_000, "drain": {
            "copy": {"seconds": 10.0, "cpu_s": 3.6, "peak_rss_mb": 114}, "product": {"seconds": 40.0, "cpu_s": 604.0, "peak_rss_mb": 621},
            "streams": {"events": 300_000, "seconds": 50.0, "cpu_s": 108.0, "peak_rss_mb": 900},
        }});
        let svg = svg(figures.as_object().unwrap()).unwrap();
        assert_eq!(svg.matches("<rect").count(), 3 * PANELS.len());
        for said in [">100,000<", ">25,000<", ">6,000<", ">604.0<", ">360.0<", ">114<", "prefers-color-scheme: dark"] {
            assert!(svg.contains(said), "no {said} in {svg}");
        }
        assert_eq!(svg.matches(&format!(r#"width="{LONGEST:.1}""#)).count(), PANELS.len());
    }

    #[test]
    fn without_a_drain_it_says_what_to_run() {
        assert!(svg(&Map::new()).unwrap_err().to_string().contains("run the benchmark"));
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [(7.0, 0), (999.94, 1), (1_476.4, 0), (1_234_567.0, 0)].map(|(n, d)| grouped(n, d)),
            ["7", "999.9", "1,476", "1,234,567"]
        );
    }
}
