//! State in bulk: rows written straight into stores, while no process has them open.

use anyhow::Result;
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::path::Path;
use tillflow_schemas::partition::partition;
use tillflow_state::{Directory, Durability, Shared, Store, Table};

/// Rows written at once.
const BATCH: usize = 20_000;
/// Batches after which the size on disk is looked at.
const LOOK_EVERY: usize = 8;
/// Products in a row.
const PRODUCTS: usize = 10;

/// Rows as the peers' sessions are, of users who never come: ten products, each with a time.
pub struct Rows {
    random: StdRng,
    user: u64,
}

impl Rows {
    /// The same ones at every call.
    pub fn new() -> Self {
        Self { random: StdRng::seed_from_u64(1), user: 0 }
    }
}

impl Iterator for Rows {
    type Item = (String, Bytes);

    /// Users come in the order of their rows: so no row has to be moved by a compaction.
    fn next(&mut self) -> Option<Self::Item> {
        let user = format!("away{:012}", self.user);
        self.user += 1;
        let mut row = Vec::with_capacity(PRODUCTS * 12);
        for _ in 0..PRODUCTS {
            let product = format!("p{}", self.random.random_range(100_000..1_000_000));
            row.push(product.len() as u8);
            row.extend_from_slice(product.as_bytes());
            // As a number that says how much earlier: three bytes.
            let earlier: u16 = self.random.random();
            row.extend_from_slice(&[earlier as u8 | 0x80, (earlier >> 8) as u8 | 0x80, 1]);
        }
        Some((user, row.into()))
    }
}

/// Writes rows into this table of a group's stores until they are so large on disk, in MB all together. The stores stay as
/// valid as they were: where they stand in their changelogs is another row. What is written is in no changelog, so only
/// the disk has it.
///
/// # Errors
/// When a store can't be opened or written.
pub fn grow(data: &Path, group: &str, partitions: u32, table: &'static str, megabytes: u64) -> Result<()> {
    let shared = Shared::new(128 << 20, 64 << 20);
    let table = Table::<String, Bytes>::new(table);
    let stores = (0..partitions).map(|n| Directory::open(&data.join(format!("{group}-{n}")), &[], &shared));
    let stores = stores.collect::<Result<Vec<_>, _>>()?;
    let mut writers: Vec<_> = stores.iter().map(|s| Store::new(Box::new(s.backend("default", &[], Durability::Volatile)))).collect();
    let mut rows = Rows::new();
    let size = || stores.iter().map(|s| s.size().bytes).sum::<u64>();
    while size() < megabytes * 1_000_000 {
        for _ in 0..LOOK_EVERY {
            for (user, row) in rows.by_ref().take(BATCH) {
                if let Some(writer) = writers.get_mut(partition(user.as_bytes(), partitions) as usize) {
                    table.put(writer, &user, &row)?;
                }
            }
            writers.iter_mut().try_for_each(|writer| writer.apply(&[]))?;
        }
    }
    Ok(stores.iter().try_for_each(Directory::flush)?)
}
