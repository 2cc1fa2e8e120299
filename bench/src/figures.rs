//! The file of figures, and what a distribution comes to.

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::{fs, path::Path, time::Duration};

/// The figures that a file holds; none where there is no file yet.
///
/// # Errors
/// When it holds something else.
pub fn read(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no figures; name another file with --json", path.display()))
}

/// Puts figures into the file; those of other parts stay.
///
/// # Errors
/// When it can't be written.
pub fn keep(path: &Path, figures: Value) -> Result<()> {
    let mut all = read(path)?;
    if let Value::Object(figures) = figures {
        all.extend(figures);
    }
    fs::write(path, format!("{:#}\n", Value::Object(all))).with_context(|| format!("writing {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Durations in order, to be asked for their percentiles.
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of these.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest that so large a share of all is not above, in milliseconds; none of nothing.
    pub fn percentile_ms(&self, share: f64) -> Option<f64> {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).map(|d| d.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillflow_tests::scratch;

    #[test]
    fn a_percentile_is_a_duration_that_was_seen() {
        let spread = Spread::of((1..=1_000).rev().map(Duration::from_millis).collect());
        assert_eq!([0.0, 0.5, 0.99, 0.999, 1.0].map(|s| spread.percentile_ms(s)), [1.0, 500.0, 990.0, 999.0, 1_000.0].map(Some));
        assert_eq!(Spread::of(Vec::new()).percentile_ms(0.5), None);
    }

    #[test]
    fn a_part_leaves_the_figures_of_the_others() {
        let files = scratch("figures");
        let path = files.join("bench.json");
        keep(&path, json!({"drain": 1, "latency": 2})).unwrap();
        keep(&path, json!({"latency": 3})).unwrap();
        assert_eq!(Value::Object(read(&path).unwrap()), json!({"drain": 1, "latency": 3}));
        std::fs::write(&path, "[]").unwrap();
        assert!(keep(&path, json!({})).unwrap_err().to_string().contains("--json"));
    }
}
