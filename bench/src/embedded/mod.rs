//! What the embedded log takes, with and without waiting for the disk: the log alone beside SQLite, which stores the same
//! records in transactions of the same size, and the whole product, to which events are posted.

mod product;
mod storage;

use crate::{
    figures::{self, Spread},
    length::length,
};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};
use tillflow_tests::scratch;

/// What the embedded log takes and what is processed there, beside SQLite.
#[derive(Args)]
pub struct Embedded {
    /// Events that are posted to the product.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Records a transaction, of the log alone and of SQLite.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    batch: Vec<usize>,
    /// For how long each of those is measured.
    #[arg(long = "for", value_parser = length, default_value = "10s")]
    length: Duration,
}

impl Embedded {
    /// Measures, prints and keeps the figures.
    ///
    /// # Errors
    /// When something does not run.
    pub fn run(&self, json: &Path) -> Result<()> {
        let disk = disk()?;
        let (p50, p99) = (disk.percentile_ms(0.5), disk.percentile_ms(0.99));
        println!("the disk's own fdatasync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms", p50.unwrap_or(f64::NAN), p99.unwrap_or(f64::NAN));
        let storage = storage::measure(&self.batch, self.length)?;
        let product = product::measure(self.events)?;
        figures::keep(json, json!({"embedded": {"disk": {"p50_ms": p50, "p99_ms": p99}, "storage": storage, "product": product}}))
    }
}

/// What waiting for the disk costs where all this is stored, whoever does it.
fn disk() -> Result<Spread> {
    const TIMES: usize = 200;
    let files = scratch("disk");
    let mut file = File::create(files.join("file"))?;
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let started = Instant::now();
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
        took.push(started.elapsed());
    }
    Ok(Spread::of(took))
}
