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
    /// The first bytes of the text as a number, in the same order: most comparisons end there.
    head: u64,
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
        let mut head = [0; 8];
        head.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
        let partition = partition(text.as_bytes(), self.partitions);
        self.names.push(Name { head: u64::from_be_bytes(head), text: text.clone(), partition });
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

    /// Whether an id comes before another, by its text.
    pub fn precedes(&self, one: u32, other: u32) -> bool {
        let of = |number: u32| self.names.get(number as usize).map(|n| (n.head, &n.text));
        of(one) < of(other)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_are_in_the_order_of_their_texts(texts in prop::collection::vec("[\\x00a-c\u{e9}]{0,12}", 2..20)) {
            let mut names = Names::new(4);
            let numbers: Vec<_> = texts.iter().map(|text| names.number(text).0).collect();
            for (one, text) in numbers.iter().zip(&texts) {
                for (other, next) in numbers.iter().zip(&texts) {
                    prop_assert_eq!(names.precedes(*one, *other), text < next);
                }
            }
        }
    }
}
