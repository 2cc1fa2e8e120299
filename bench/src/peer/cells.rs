//! The counts of one product's neighbours: of all, or of a bounded number.

use super::{
    Mode,
    bytes::{Reader, put_number},
    packed::Packed,
};

/// Neighbours kept of a product where they are bounded.
pub const BOUND: usize = 128;

/// The counts of one product's neighbours.
pub enum Cells {
    /// Of all.
    Exact(Packed),
    /// Of the most frequent, by Space-Saving (Metwally, Agrawal, El Abbadi 2005): where there is no room, the least
    /// frequent makes it, and the newcomer takes its count over. So a count is never too low, and too high by at most
    /// the least.
    Bounded {
        /// Who.
        others: Vec<u32>,
        /// How often.
        counts: Vec<u32>,
    },
}

impl Cells {
    /// None yet.
    pub fn new(mode: Mode) -> Self {
        match mode {
            Mode::Exact => Self::Exact(Packed::default()),
            Mode::Bounded => Self::Bounded { others: Vec::new(), counts: Vec::new() },
        }
    }

    /// Counts once more; returns the count and whom it put out.
    pub fn add(&mut self, other: u32) -> (u32, Option<u32>) {
        match self {
            Self::Exact(counts) => (counts.add(other), None),
            Self::Bounded { others, counts } => {
                if let Some(count) = find(others, other).and_then(|at| counts.get_mut(at)) {
                    *count = count.saturating_add(1);
                    return (*count, None);
                }
                if others.len() < BOUND {
                    others.push(other);
                    counts.push(1);
                    return (1, None);
                }
                let least = counts.iter().copied().min().and_then(|least| find(counts, least));
                let Some((place, count)) = least.and_then(|at| Some((others.get_mut(at)?, counts.get_mut(at)?))) else {
                    return (0, None);
                };
                *count = count.saturating_add(1);
                (*count, Some(std::mem::replace(place, other)))
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (u32, u32)> + '_> {
        match self {
            Self::Exact(counts) => Box::new(counts.iter()),
            Self::Bounded { others, counts } => Box::new(others.iter().copied().zip(counts.iter().copied())),
        }
    }

    /// Appends them.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut all: Vec<_> = self.iter().collect();
        if matches!(self, Self::Exact(_)) {
            all.sort_unstable();
        }
        let mut before = 0_u32;
        for (other, count) in all {
            // In the order of numbers the steps are small; a bounded list keeps its own, which decides who has to go.
            put_number(other.wrapping_sub(before).into(), out);
            put_number(count.into(), out);
            before = other;
        }
    }

    /// Reads what was written; `None` where it is something else.
    pub fn read(mode: Mode, reader: &mut Reader<'_>) -> Option<Self> {
        let mut cells = Self::new(mode);
        let mut before = 0_u32;
        while !reader.is_empty() {
            let other = before.wrapping_add(reader.small()?);
            let count = reader.small()?;
            match &mut cells {
                Self::Exact(counts) => counts.set(other, count),
                Self::Bounded { others, counts } => {
                    others.push(other);
                    counts.push(count);
                }
            }
            before = other;
        }
        Some(cells)
    }
}

/// Where a number comes first: sixteen at a time, which the compiler makes a few instructions.
fn find(all: &[u32], wanted: u32) -> Option<usize> {
    let (blocks, rest) = all.as_chunks::<16>();
    let found = blocks.iter().position(|block| block.iter().fold(false, |any, number| any | (*number == wanted)));
    let (from, among) = match found {
        Some(block) => (block * 16, blocks.get(block).map(<[u32; 16]>::as_slice)?),
        None => (blocks.len() * 16, rest),
    };
    among.iter().position(|number| *number == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_where_it_comes_first() {
        for length in 0..70_u32 {
            let all: Vec<u32> = (0..length).map(|n| n % 40).collect();
            for wanted in 0..45 {
                assert_eq!(find(&all, wanted), all.iter().position(|n| *n == wanted), "{wanted} of {length}");
            }
        }
    }
}
