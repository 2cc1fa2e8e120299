//! One key with a large share of a task's records lately, found with a bounded sketch: Space-Saving (Metwally, Agrawal,
//! El Abbadi 2005), fed with a sample.

use super::{Task, Warning};
use crate::metrics::Metrics;

/// Keys that are counted at once.
const COUNTERS: usize = 16;
/// One of 2 to the power of this many records is looked at. Which ones follows from their offsets, mixed: a sender's rhythm must not show.
const SAMPLE_BITS: u32 = 4;
/// After so many records looked at, all counts are halved: what was long ago is forgotten.
const LATELY: u32 = 1_024;
/// Fewer than this say little.
const LEAST: u32 = 128;
/// A share in per cent that is too much for one key.
const HOT: u32 = 30;
/// Keys are shown up to this length.
const LONGEST: usize = 80;

/// The keys that a task saw most, lately.
#[derive(Default)]
pub struct HotKeys {
    counters: Vec<Counter>,
    looked_at: u32,
}

struct Counter {
    key: String,
    count: u32,
    /// What the count may be too high by: it was taken over from another key.
    error: u32,
}

impl HotKeys {
    /// Takes note of a record, if it is one of the sample.
    #[inline]
    pub fn see(&mut self, offset: i64, key: &str) {
        if (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SAMPLE_BITS) == 0 {
            self.count(key);
        }
    }

    fn count(&mut self, key: &str) {
        self.looked_at += 1;
        if let Some(counter) = self.counters.iter_mut().find(|c| c.key == key) {
            counter.count += 1;
        } else if self.counters.len() < COUNTERS {
            self.counters.push(Counter { key: key.to_owned(), count: 1, error: 0 });
        } else if let Some(least) = self.counters.iter_mut().min_by_key(|c| c.count) {
            // The newcomer takes the place of the rarest, with its count: no key is ever counted too low.
            least.key.clear();
            least.key.push_str(key);
            least.error = least.count;
            least.count += 1;
        }
        if self.looked_at >= LATELY {
            self.looked_at /= 2;
            for counter in &mut self.counters {
                counter.count /= 2;
                counter.error /= 2;
            }
        }
    }

    /// The key with the largest share that is certain, and that share in per cent.
    pub fn hottest(&self) -> Option<(String, u32)> {
        if self.looked_at < LEAST {
            return None;
        }
        let hottest = self.counters.iter().max_by_key(|c| c.count - c.error)?;
        Some((hottest.key.clone(), (hottest.count - hottest.error) * 100 / self.looked_at))
    }
}

/// Looks at the tasks' hottest keys.
pub fn look(tasks: &[Task<'_>], metrics: &Metrics) -> Vec<Warning> {
    let mut found = Vec::new();
    for ((group, partition), view) in tasks {
        let share = view.hottest.as_ref().map_or(0, |(_, share)| *share);
        metrics.hot_key_percent.with_label_values(&[group, &partition.to_string()]).set(share.into());
        if let Some((key, share)) = view.hottest.as_ref().filter(|(_, share)| *share >= HOT) {
            let key: String = key.chars().take(LONGEST).collect();
            found.push(Warning {
                kind: "hot_key",
                place: format!("{group} {partition}"),
                what: format!("{share} % of what {group} {partition} processed lately is of one key, '{key}'"),
                mend:
                    "if it is a robot, a test or an id that stands for nobody (such as 'null'), stop it at its sender; a key's records are \
                       processed by one task, so that more partitions or instances do not help"
                        .into(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_key_is_found_among_thousands_of_others() {
        let mut keys = HotKeys::default();
        for n in 0..100_000 {
            keys.see(n, &if n % 5 < 2 { "robot".to_owned() } else { format!("u{}", n * 7_919 % 10_007) });
        }
        let (key, share) = keys.hottest().unwrap();
        assert!(key == "robot" && (30..=42).contains(&share), "{key} {share}");
        assert_eq!(keys.counters.len(), COUNTERS);
        // It stops, and is forgotten.
        (100_000..200_000).for_each(|n| keys.see(n, &format!("u{}", n * 7_919 % 10_007)));
        assert!(keys.hottest().unwrap().1 < HOT);
    }

    #[test]
    fn one_of_sixteen_records_is_looked_at_whatever_the_rhythm() {
        for rhythm in [1, 2, 4, 16, 100] {
            let mut keys = HotKeys::default();
            (0..1_600 * rhythm).step_by(rhythm as usize).for_each(|n| keys.see(n, "u1"));
            assert!((80..=120).contains(&keys.looked_at), "{rhythm}: {}", keys.looked_at);
        }
    }

    #[test]
    fn few_records_say_nothing() {
        let mut keys = HotKeys::default();
        (0..LEAST - 1).for_each(|_| keys.count("u1"));
        assert_eq!(keys.hottest(), None);
        keys.count("u1");
        assert_eq!(keys.hottest(), Some(("u1".to_owned(), 100)));
    }
}
