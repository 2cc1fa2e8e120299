//! What single steps of the product cost: `cargo bench --locked --workspace --profile dev --bench steps`, with a part of a name behind it
//! for one of them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that can't be set up stops")]

use divan::{Bencher, black_box, counter::ItemsCount};
use rust_decimal::Decimal;
use std::sync::Arc;
use tillflow_engine::log::{NewRecord, TopicPartition, embedded::Embedded};
use tillflow_engine_api::{Globals, Place, Task};
use tillflow_processors::{
    pricing::{Bucket, Counts, DayOfDemand, Demand},
    recommendations::{
        RecommendationsSettings,
        neighbours::{Memory as PairMemory, Neighbours},
    },
};
use tillflow_schemas::{
    BuiltInRegistry, Catalog, Codec, Event, ItemPair, SchemaRegistry as _, Timestamp, avro, framing, partition::partition, registry,
};
use tillflow_state::{Directory, Durability, Memory, Shared, Store, Table};
use tillflow_tests::{Scratch, scratch};

#[path = "../src/load.rs"]
#[allow(dead_code, unused_imports, reason = "the benchmark program uses the rest, and tests it")]
mod load;

const SEED: u64 = 7;
const PARTITIONS: u32 = 4;

fn main() {
    divan::main();
}

/// A shop's traffic, as it stands in the topic.
fn traffic(events: u64) -> Vec<(String, String)> {
    load::events(events, 10_000, 2_000, SEED).collect()
}

mod decode {
    use super::*;

    /// A thousand events of a shop's mix.
    #[divan::bench]
    fn json(bencher: Bencher) {
        let (codec, catalog, events) = (Codec::json(), Catalog::built_in(PARTITIONS).unwrap(), traffic(1_000));
        let topic = catalog.of_schema("user_event").unwrap();
        bencher.counter(ItemsCount::new(events.len())).bench(|| {
            events
                .iter()
                .for_each(|(user, event)| drop(black_box(codec.decode(topic, Some(user.as_bytes()), Some(event.as_bytes())).unwrap())));
        });
    }

    /// The same, framed.
    #[divan::bench]
    fn avro(bencher: Bencher) {
        let (registry, catalog) = (Arc::new(BuiltInRegistry::default()), Catalog::built_in(PARTITIONS).unwrap());
        let topic = catalog.of_schema("user_event").unwrap();
        let schema = avro::built_in("user_event").unwrap();
        let id = registry.register(&registry::subject("", &topic.name), schema.text()).unwrap();
        let framed = |(user, event): (String, String)| (user, framing::frame(id, &schema.encode(event.as_bytes()).unwrap()));
        let events: Vec<(String, Vec<u8>)> = traffic(1_000).into_iter().map(framed).collect();
        let codec = Codec::with_registry(registry, "");
        bencher.counter(ItemsCount::new(events.len())).bench(|| {
            events.iter().for_each(|(user, event)| drop(black_box(codec.decode(topic, Some(user.as_bytes()), Some(event)).unwrap())));
        });
    }
}

mod store {
    use super::*;

    const ROWS: u64 = 10_000;

    fn key(n: u64) -> String {
        format!("u{n:05}")
    }

    /// A store over RocksDB with ten thousand committed rows, and none uncommitted.
    fn committed() -> (Scratch, Table<String, u64>, Store) {
        let files = scratch("store");
        let directory = Directory::open(files.path(), &["state"], &Shared::new(64 << 20, 32 << 20)).unwrap();
        let mut store = Store::new(Box::new(directory.backend("state", b"t", Durability::Process)));
        let table = Table::new("bench.rows");
        (0..ROWS).for_each(|n| table.put(&mut store, &key(n), &n).unwrap());
        store.apply(&[]).unwrap();
        (files, table, store)
    }

    /// A row is read and written, as a record does it: the read is of the overlay or the cache once it was read before.
    #[divan::bench]
    fn get_and_put(bencher: Bencher) {
        let (_files, table, mut store) = committed();
        let keys: Vec<String> = (0..ROWS).step_by(10).map(key).collect();
        bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
            for key in &keys {
                store.savepoint();
                let before = table.get(&store, key).unwrap().unwrap_or_default();
                table.put(&mut store, key, &(before + 1)).unwrap();
            }
        });
    }

    /// Rows that are read for the first time, of RocksDB.
    #[divan::bench]
    fn get_committed(bencher: Bencher) {
        let (_files, table, mut store) = committed();
        let keys: Vec<String> = (0..ROWS).step_by(10).map(key).collect();
        bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
            // Forgets what it has cached.
            store.backend_mut();
            for key in &keys {
                black_box(table.get(&store, key).unwrap());
            }
        });
    }

    /// A thousand changed rows become state, in one batch: after a commit on Kafka.
    #[divan::bench]
    fn apply_batch(bencher: Bencher) {
        let (_files, table, mut store) = committed();
        let keys: Vec<String> = (0..ROWS).step_by(10).map(key).collect();
        bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
            keys.iter().for_each(|key| table.put(&mut store, key, &7).unwrap());
            store.apply(&[]).unwrap();
        });
    }
}

mod rules {
    use super::*;

    fn pair(n: usize) -> ItemPair {
        let at = Timestamp::parse("2026-03-02T00:00:00Z").unwrap();
        ItemPair {
            other: format!("p{n:05}").as_str().into(),
            bucket: at,
            weight: 1_000,
            count: 1,
            at,
            other_total: 10,
            sample_total: 10_000,
        }
    }

    /// Five pairs of one commit are added to a product that has so many neighbours.
    #[divan::bench(args = [20, 1_000, 4_000])]
    fn add_pairs(bencher: Bencher, known: usize) {
        let memory = PairMemory::new(&RecommendationsSettings::default());
        let mut of = Neighbours::default();
        let all: Vec<ItemPair> = (0..known).map(pair).collect();
        of.add(all.iter().map(|pair| (0, pair)), &memory);
        let few: Vec<ItemPair> = (0..5).map(|n| pair(n * known / 5)).collect();
        bencher.bench_local(|| of.add(few.iter().map(|pair| (0, pair)), &memory));
    }

    /// The score of a product that was looked at in every quarter of an hour for three days.
    #[divan::bench]
    fn demand_score(bencher: Bencher) {
        let at = Timestamp::parse("2026-03-10T12:00:00Z").unwrap();
        let now = Bucket::of(at);
        let mut days: Vec<(i64, DayOfDemand)> = Vec::new();
        for bucket in (now.0 - 4 * 72..now.0).map(Bucket) {
            if days.last().is_none_or(|(day, _)| *day != bucket.day()) {
                days.push((bucket.day(), DayOfDemand::default()));
            }
            let counts = Counts { views: 9, long_views: 3, adds: 2, checkouts: 1, orders: 1, units: 2 };
            days.iter_mut().last().unwrap().1.add(tillflow_processors::pricing::Place::here(bucket), counts);
        }
        bencher.bench(|| Demand::of(&days, at).figures(at, Decimal::new(2, 2)).score);
    }

    /// A thousand events of a shop's mix through all processors of the group of users, over state in memory.
    #[divan::bench]
    fn customers(bencher: Bencher) {
        let group = tillflow_processors::customers(&serde_json::Map::new());
        let decode = |(user, event): &(String, String)| Event::decode("user_event", Some(user), Some(event.as_bytes())).unwrap();
        let events: Vec<Event> = traffic(1_000).iter().map(decode).collect();
        let globals = Globals::default();
        let task = || Task::new(&group, Place { partition: 0, partitions: PARTITIONS }, Store::new(Box::new(Memory::default())));
        bencher.counter(ItemsCount::new(events.len())).with_inputs(task).bench_local_refs(|task| {
            for event in &events {
                drop(black_box(task.process(event, &globals)));
                event.time().into_iter().for_each(|at| task.set_clock(at));
            }
        });
    }
}

mod embedded {
    use super::*;

    const RECORDS: u64 = 100;
    const ROWS: usize = 300;

    /// One commit: a hundred records and three hundred rows of state in one atomic batch.
    #[divan::bench(args = [Durability::Process, Durability::Disk])]
    fn commit(bencher: Bencher, durability: Durability) {
        let (files, catalog) = (scratch("commit"), Catalog::built_in(PARTITIONS).unwrap());
        let log = Embedded::open(files.path(), &catalog, durability, &Shared::new(64 << 20, 32 << 20)).unwrap();
        let topic = catalog.of_schema("user_event").and_then(|t| catalog.index(&t.name)).unwrap();
        let record = |(user, event): (String, String)| NewRecord {
            to: TopicPartition { topic, partition: partition(user.as_bytes(), PARTITIONS) },
            at: Timestamp::EARLIEST,
            key: Some(user.into_bytes()),
            value: Some(event.into_bytes()),
            headers: Vec::new(),
        };
        let records: Vec<NewRecord> = traffic(RECORDS).into_iter().map(record).collect();
        let backend = log.state("customers", 0);
        let keys: Vec<Vec<u8>> = (0..ROWS).map(|n| backend.row(format!("bench.rows/u{n:05}").as_bytes())).collect();
        bencher.bench_local(|| log.write(&records, keys.iter().map(|key| (key.clone(), Some([7; 120].as_slice())))).unwrap());
    }
}
