//! The products' side of co-occurrence: counts by [`Counts`], kept in the store, and the lists that are told.

use super::{
    Mode,
    bytes::{Reader, put_number},
    counts::Counts,
    output::Related,
    parcel::Content,
};
use bytes::Bytes;
use tillflow_engine_api::{Combine, Combined, Context, Declare, Error, Processor, Result};
use tillflow_schemas::{Event, Parcel};
use tillflow_state::{Read, Table};

/// Bytes of the log after which the products' rows are written anew.
const LOG_BYTES: usize = 4 << 20;
/// Bytes of rows written with one parcel, at most by one row.
const ROWS_BYTES: usize = 64 << 10;

/// The stored form of [`Counts`].
#[derive(Clone, Copy)]
pub struct Tables {
    /// Products by number.
    names: Table<u32, String>,
    /// Counts of a product.
    rows: Table<u32, Bytes>,
    /// What was counted since, by entry.
    log: Table<u64, Bytes>,
    /// The last entry of the log.
    last: Table<(), u64>,
}

/// Where the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Log {
    first: u64,
    last: u64,
    bytes: usize,
    /// While rows are being written: the last entry that will be in all of them, and the next product.
    writing: Option<(u64, u32)>,
}

/// The processor.
pub struct Neighbours {
    tables: Tables,
    related: Combined<Latest>,
    mode: Mode,
    /// Only as long as the store is where it is.
    held: Option<(Counts, Log)>,
}

/// The list of a product; of several within a commit the last counts.
pub struct Latest {
    seq: u64,
    related: Related,
}

impl Combine for Latest {
    type Out = Related;
    fn slot(&self) -> String {
        self.related.product_id.to_string()
    }
    fn absorb(&mut self, other: Self) {
        if other.seq >= self.seq {
            *self = other;
        }
    }
    fn finish(self) -> Related {
        self.related
    }
}

impl Tables {
    /// The tables by their names.
    pub fn new() -> Self {
        Self {
            names: Table::new("peer.names"),
            rows: Table::new("peer.counts"),
            log: Table::new("peer.log"),
            last: Table::new("peer.last"),
        }
    }

    /// The counts of a store.
    ///
    /// # Errors
    /// When the store fails or holds something else.
    pub fn read(&self, mode: Mode, partition: u32, partitions: u32, store: &dyn Read) -> Result<Counts> {
        let (mut names, mut rows, mut log) = (Vec::new(), Vec::new(), Vec::new());
        self.names.scan(store, &(), |k, v| keep(&mut names, k, v))?;
        self.rows.scan(store, &(), |k, v| keep(&mut rows, k, v))?;
        self.log.scan(store, &(), |k, v| keep(&mut log, k, v))?;
        Ok(build(Counts::new(mode, partition, partitions), names, rows, log)?.0)
    }
}

fn keep<K, V>(rows: &mut Vec<(K, V)>, key: K, value: V) -> bool {
    rows.push((key, value));
    true
}

fn build(mut counts: Counts, names: Vec<(u32, String)>, rows: Vec<(u32, Bytes)>, log: Vec<(u64, Bytes)>) -> Result<(Counts, Log)> {
    let damaged = || Error::reject("stored counts that can't be read");
    for (_, name) in names {
        counts.number(&name);
    }
    for (number, row) in rows {
        counts.take_row(number, &row).ok_or_else(damaged)?;
    }
    let mut stands = Log { first: log.first().map_or(1, |(seq, _)| *seq), ..Log::default() };
    for (seq, entry) in log {
        stands.last = seq;
        stands.bytes += entry.len();
        replay(&mut counts, seq, &entry).ok_or_else(damaged)?;
    }
    counts.take_moved();
    Ok((counts, stands))
}

fn replay(counts: &mut Counts, seq: u64, entry: &[u8]) -> Option<()> {
    let (mut reader, mut others) = (Reader(entry), Vec::new());
    while !reader.is_empty() {
        let product = reader.small()?;
        others.clear();
        for _ in 0..reader.number()? {
            others.push(reader.small()?);
        }
        counts.met(product, &others, seq);
    }
    Some(())
}

impl Neighbours {
    fn declare_as(mode: Mode, d: &mut Declare<'_>) -> Self {
        d.input::<Parcel>();
        let tables =
            Tables { names: d.store("peer.names"), rows: d.store("peer.counts"), log: d.store("peer.log"), last: d.store("peer.last") };
        Self { tables, related: d.combined(), mode, held: None }
    }

    /// The counts as of the last record, and where their log stands. Taken away: what fails leaves nothing behind.
    fn hold(&mut self, cx: &Context<'_>) -> Result<(Counts, Log)> {
        let last = cx.get(&self.tables.last, &())?.unwrap_or(0);
        if let Some((counts, log)) = self.held.take().filter(|(_, log)| log.last == last) {
            return Ok((counts, log));
        }
        let (names, rows, log) = (cx.rows(&self.tables.names, &())?, cx.rows(&self.tables.rows, &())?, cx.rows(&self.tables.log, &())?);
        let place = cx.place();
        let (counts, log) = build(Counts::new(self.mode, place.partition, place.partitions), names, rows, log)?;
        Ok((counts, Log { last, ..log }))
    }

    /// Counts what a parcel says and stores it as an entry of the log.
    fn count(&self, parcel: &Parcel, counts: &mut Counts, log: &mut Log, cx: &mut Context<'_>) -> Result<()> {
        let wrong = || Error::reject("not a parcel of this job");
        let content = Content::open(&parcel.body).ok_or_else(wrong)?;
        let mut numbers = Vec::with_capacity(content.names.len());
        for name in &content.names {
            let (number, new) = counts.number(name);
            if new {
                cx.put(&self.tables.names, &number, &(*name).to_owned())?;
            }
            numbers.push(number);
        }
        log.last += 1;
        let (seq, mut entry, mut others) = (log.last, Vec::with_capacity(parcel.body.len()), Vec::new());
        let known = |local: &u32| numbers.get(*local as usize).copied();
        let read = content.meetings(|product, met| {
            others.clear();
            others.extend(met.iter().filter_map(known));
            let product = known(&product).unwrap_or_default();
            put_number(product.into(), &mut entry);
            put_number(others.len() as u64, &mut entry);
            others.iter().for_each(|other| put_number((*other).into(), &mut entry));
            counts.met(product, &others, seq);
        });
        read.ok_or_else(wrong)?;
        log.bytes += entry.len();
        cx.put(&self.tables.log, &seq, &entry.into())?;
        cx.put(&self.tables.last, &(), &seq)
    }

    /// Writes some of the rows that lag behind the log; when none is left, the log before them goes.
    fn catch_up(&self, counts: &mut Counts, log: &mut Log, cx: &mut Context<'_>) -> Result<()> {
        if log.writing.is_none() && log.bytes >= LOG_BYTES {
            log.writing = Some((log.last, 0));
            log.bytes = 0;
        }
        let Some((until, mut next)) = log.writing else { return Ok(()) };
        let mut bytes = 0;
        while bytes < ROWS_BYTES {
            let Some((number, row)) = counts.next_row(next, log.last) else {
                (log.first..=until).for_each(|seq| cx.delete(&self.tables.log, &seq));
                (log.first, log.writing) = (until + 1, None);
                return Ok(());
            };
            bytes += row.len();
            cx.put(&self.tables.rows, &number, &row.into())?;
            next = number + 1;
        }
        log.writing = Some((until, next));
        Ok(())
    }
}

impl Neighbours {
    fn take(&mut self, parcel: &Parcel, cx: &mut Context<'_>) -> Result<()> {
        let (mut counts, mut log) = self.hold(cx)?;
        self.count(parcel, &mut counts, &mut log, cx)?;
        self.catch_up(&mut counts, &mut log, cx)?;
        for number in counts.take_moved() {
            let related = Related { product_id: counts.names.text(number), related: counts.top(number) };
            cx.combine(&self.related, Latest { seq: log.last, related });
        }
        self.held = Some((counts, log));
        Ok(())
    }
}

macro_rules! processor {
    ($(#[$doc:meta])* $name:ident, $mode:expr) => {
        $(#[$doc])*
        pub struct $name(Neighbours);

        impl Processor for $name {
            fn declare(d: &mut Declare<'_>) -> Self {
                Self(Neighbours::declare_as($mode, d))
            }

            fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
                match event {
                    Event::Parcel(parcel) => self.0.take(parcel, cx),
                    _ => Ok(()),
                }
            }
        }
    };
}
processor!(
    /// Every pair counted.
    Exact,
    Mode::Exact
);
processor!(
    /// A bounded number of neighbours a product.
    Bounded,
    Mode::Bounded
);

#[cfg(test)]
mod tests {
    use super::super::{names::Names, parcel::Bundle};
    use super::*;
    use parking_lot::RwLock;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::{collections::BTreeMap, sync::Arc};
    use tillflow_engine_api::testing::Driver;
    use tillflow_schemas::{Record as _, Timestamp};

    fn parcel(meetings: &[(u32, u32)]) -> Event {
        let names = Arc::new(RwLock::new(Names::new(1)));
        for n in 0..50 {
            names.write().number(&format!("p{n}"));
        }
        let meetings = meetings.iter().flat_map(|(a, b)| [*a, 1, *b]).collect();
        Bundle { to: 0, partitions: 1, names, demands: Default::default(), meetings }.finish().into_event()
    }

    fn stored(shop: &mut Driver) -> BTreeMap<(String, String), u32> {
        let counts = Tables::new().read(Mode::Exact, 0, 1, shop.task().store()).unwrap();
        counts.all().into_iter().map(|((a, b), n)| ((a.to_owned(), b.to_owned()), n)).collect()
    }

    #[test]
    fn what_is_stored_is_every_pair_whatever_was_aborted_or_written_behind() {
        let mut random = StdRng::seed_from_u64(1);
        let mut shop = Driver::of::<Exact>();
        let (mut committed, mut open) = (BTreeMap::new(), BTreeMap::new());
        for round in 0..260 {
            // Many, so that the log is written behind several times.
            let meetings: Vec<_> =
                (0..8_000).map(|_| (random.random_range(0..50), random.random_range(0..50))).filter(|(a, b)| a != b).collect();
            for (a, b) in &meetings {
                *open.entry((format!("p{a}"), format!("p{b}"))).or_insert(0) += 1;
                *open.entry((format!("p{b}"), format!("p{a}"))).or_insert(0) += 1;
            }
            shop.send(parcel(&meetings));
            assert!(shop.failures.is_empty(), "{:?}", shop.failures);
            match random.random_range(0..8) {
                0 => {
                    shop.task().reset(Timestamp::MIN, Timestamp::MIN);
                    open = committed.clone();
                }
                1 => {
                    shop.commit();
                    committed = open.clone();
                }
                _ => {}
            }
            if round % 130 == 129 {
                assert_eq!(stored(&mut shop), open, "round {round}");
            }
        }
        let log = Tables::new().log;
        let mut entries = 0;
        log.scan(shop.task().store(), &(), |_, _| {
            entries += 1;
            true
        })
        .unwrap();
        assert!(entries < 200, "the log is never cut: {entries} entries");
    }
}
