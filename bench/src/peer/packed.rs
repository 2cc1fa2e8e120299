//! Counts by number in four bytes each: of millions of pairs nearly all meet seldom.

use rustc_hash::FxHashMap;

/// Bits of a slot that count.
const BITS: u32 = 8;
/// A slot's count that says that the number is among the frequent ones.
const FREQUENT: u32 = (1 << BITS) - 1;
/// Slots of the smallest table.
const LEAST: usize = 8;
/// Knuth's multiplicative hashing: 2^32 through the golden ratio.
const GOLDEN: u32 = 0x9e37_79b9;

/// Counts by number: an open table with linear probing, and beside it what does not fit a slot.
#[derive(Default)]
pub struct Packed {
    /// Number and count; 0 is free.
    slots: Vec<u32>,
    taken: usize,
    /// Counts from [`FREQUENT`] on, and those of numbers that are too large for a slot.
    frequent: FxHashMap<u32, u32>,
}

impl Packed {
    /// Counts once more; returns the count.
    pub fn add(&mut self, number: u32) -> u32 {
        let Some(slot) = self.slot(number) else {
            let count = self.frequent.entry(number).or_insert(0);
            *count = count.saturating_add(1);
            return *count;
        };
        *slot += 1;
        let count = *slot & FREQUENT;
        if count == FREQUENT {
            self.frequent.insert(number, count);
        }
        count
    }

    /// Takes a count that was stored; at least 1.
    pub fn set(&mut self, number: u32, count: u32) {
        let slot = self.slot(number).map(|slot| *slot = number << BITS | count.min(FREQUENT));
        if slot.is_none() || count >= FREQUENT {
            self.frequent.insert(number, count);
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let seldom = self.slots.iter().map(|slot| (slot >> BITS, slot & FREQUENT)).filter(|(_, count)| *count != 0 && *count != FREQUENT);
        seldom.chain(self.frequent.iter().map(|(number, count)| (*number, *count)))
    }

    /// The slot of a number, perhaps a new one; none where its count lies among the frequent ones.
    fn slot(&mut self, number: u32) -> Option<&mut u32> {
        if number >> (u32::BITS - BITS) != 0 {
            return None;
        }
        // Full to four fifths, a search that fails takes 13 steps on average (Knuth 1963), the slots of a cache line are 16.
        if self.slots.is_empty() || (self.taken + 1) * 5 > self.slots.len() * 4 {
            self.grow();
        }
        let at = place(&self.slots, number);
        let slot = self.slots.get_mut(at)?;
        if *slot == 0 {
            *slot = number << BITS;
            self.taken += 1;
        }
        (*slot & FREQUENT != FREQUENT).then_some(slot)
    }

    /// By half: what is free is memory, too.
    fn grow(&mut self) {
        let larger = vec![0; LEAST.max(self.slots.len() + self.slots.len() / 2)];
        for slot in std::mem::replace(&mut self.slots, larger).into_iter().filter(|slot| *slot != 0) {
            let at = place(&self.slots, slot >> BITS);
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
    }
}

/// Where a number is, or would be. Some slots are free.
fn place(slots: &[u32], number: u32) -> usize {
    // As a part of 2^32, of which it takes as large a part of the table (Lemire 2019).
    let first = ((u64::from(number.wrapping_mul(GOLDEN)) * slots.len() as u64) >> u32::BITS) as usize;
    let is_its = |slot: &u32| *slot & FREQUENT == 0 || slot >> BITS == number;
    let (before, after) = slots.split_at(first);
    after.iter().position(is_its).map_or_else(|| before.iter().position(is_its).unwrap_or_default(), |at| first + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(numbers in prop::collection::vec(prop_oneof![0..40_u32, 0..3_000_u32, (1 << 24) - 3..(1 << 24) + 3_u32], 0..6_000), often in 0..600_u32) {
            let (mut packed, mut model) = (Packed::default(), BTreeMap::new());
            for number in numbers.into_iter().chain(std::iter::repeat_n(7, often as usize)) {
                let count = model.entry(number).or_insert(0);
                *count += 1;
                prop_assert_eq!(packed.add(number), *count);
            }
            let mut stored = Packed::default();
            packed.iter().for_each(|(number, count)| stored.set(number, count));
            for all in [&packed, &stored] {
                prop_assert_eq!(&all.iter().collect::<BTreeMap<_, _>>(), &model);
                prop_assert_eq!(all.iter().count(), model.len());
            }
            let again = model.iter().map(|(number, count)| (*number, count + 1)).collect::<Vec<_>>();
            for (number, count) in again {
                prop_assert_eq!(stored.add(number), count);
            }
        }
    }
}
