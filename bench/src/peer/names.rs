//! Numbers for product ids: four bytes instead of a text wherever ids are many.

use rustc_hash::FxHashMap;
use std::sync::Arc;
use tillflow_schemas::partition::partition;

/// Product ids by number, in the order they were first seen.
pub struct Names {
    numbers: FxHashMap<Arc<str>, u32>,
    names: Vec<Name>,
    partitions: u32,
}

struct Name {
    text: Arc<str>,
    partition: u32,
}

impl Names {
    /// None yet; ids are placed among so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self { numbers: FxHashMap::default(), names: Vec::new(), partitions }
    }

    /// The number of an id, and whether it is a new one.
    pub fn number(&mut self, text: &str) -> (u32, bool) {
        if let Some(number) = self.numbers.get(text) {
            return (*number, false);
        }
        let (number, text) = (self.names.len() as u32, Arc::<str>::from(text));
        self.names.push(Name { text: text.clone(), partition: partition(text.as_bytes(), self.partitions) });
        self.numbers.insert(text, number);
        (number, true)
    }

    /// The id of a number.
    pub fn text(&self, number: u32) -> Arc<str> {
        self.names.get(number as usize).map_or_else(|| "".into(), |n| n.text.clone())
    }

    /// The id of a number, to be compared.
    pub fn as_str(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |n| &n.text)
    }

    /// The partition in which a number's id lies.
    pub fn partition(&self, number: u32) -> u32 {
        self.names.get(number as usize).map_or(0, |n| n.partition)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }
}
