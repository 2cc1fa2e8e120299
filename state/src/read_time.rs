//! How long a store waits for its backend. Looking at the clock costs as much as a cached row, so single reads are
//! sampled.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Of so many single reads one is measured, and counts for all of them.
const ONE_OF: u32 = 16;

/// Time spent in a backend since it was last asked for.
#[derive(Default)]
pub struct ReadTime {
    reads: Cell<u32>,
    spent: Cell<Duration>,
}

impl ReadTime {
    /// One of many short reads.
    pub fn sampled<T>(&self, read: impl FnOnce() -> T) -> T {
        let n = self.reads.get();
        self.reads.set(n.wrapping_add(1));
        if n.is_multiple_of(ONE_OF) { self.measured(ONE_OF, read) } else { read() }
    }

    /// A longer read.
    pub fn whole<T>(&self, read: impl FnOnce() -> T) -> T {
        self.measured(1, read)
    }

    /// What was spent since it was last taken.
    pub fn take(&self) -> Duration {
        self.spent.take()
    }

    fn measured<T>(&self, weight: u32, read: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = read();
        self.spent.set(self.spent.get() + started.elapsed() * weight);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_sixteen_reads_is_measured_and_counts_for_all() {
        let time = ReadTime::default();
        let spin = |least: Duration| {
            let started = Instant::now();
            while started.elapsed() < least {}
        };
        let least = Duration::from_micros(100);
        (0..ONE_OF).for_each(|_| time.sampled(|| spin(least)));
        assert!(time.take() >= least * ONE_OF);
        assert_eq!(time.take(), Duration::ZERO, "it begins anew once it is taken");
        time.whole(|| spin(least));
        assert!(time.take() >= least);
    }
}
