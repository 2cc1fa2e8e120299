//! How often products were seen together, and the most frequent others of each: a map in memory that is written behind.
//!
//! A million events count eleven million times, in nine million different pairs a commit: a row each would be most of
//! the work. So a commit stores what it counted as one row of a log, in the order it came. Now and then all products
//! that have changed get a row with their counts, a few at a time, after which the log before is deleted. What is in
//! memory can be made from rows and log at any time, and is, where the store is not where the memory is: after a
//! restart, an abort or a failed record.

use super::{
    Mode,
    bytes::{Reader, put_number},
    cells::Cells,
    names::Names,
};
use rustc_hash::FxHashMap;
use std::{cmp::Ordering, sync::Arc};

/// Neighbours of a product that are told.
pub const TOP: usize = 20;

/// One product's neighbours.
struct Product {
    cells: Cells,
    /// The most frequent, the first the most; ties by id.
    top: Vec<(u32, u32)>,
    /// The log up to here is in the product's row.
    through: u64,
    /// Whether counts have changed since its row was written.
    changed: bool,
    /// Whether order or members of `top` have changed since they were told.
    moved: bool,
}

/// All neighbours of the products of one task.
pub struct Counts {
    mode: Mode,
    partition: u32,
    /// Numbers of all products, in the order of their rows.
    pub names: Names,
    products: Vec<Option<Product>>,
    /// Products to be told.
    moved: Vec<u32>,
}

impl Counts {
    /// None yet.
    pub fn new(mode: Mode, partition: u32, partitions: u32) -> Self {
        Self { mode, partition, names: Names::new(partitions), products: Vec::new(), moved: Vec::new() }
    }

    /// The number of a product, and whether it is a new one.
    pub fn number(&mut self, name: &str) -> (u32, bool) {
        let (number, new) = self.names.number(name);
        if new {
            let own = self.names.partition(number) == self.partition;
            let product = || Product { cells: Cells::new(self.mode), top: Vec::new(), through: 0, changed: false, moved: false };
            self.products.push(own.then(product));
        }
        (number, new)
    }

    /// Counts a product's meeting with others, both ways, where they are this task's own: the entry `seq` of the log.
    pub fn met(&mut self, product: u32, others: &[u32], seq: u64) {
        for &other in others {
            self.add(product, other, seq);
            self.add(other, product, seq);
        }
    }

    fn add(&mut self, of: u32, other: u32, seq: u64) {
        let Some(Some(product)) = self.products.get_mut(of as usize) else { return };
        if seq <= product.through {
            return;
        }
        product.changed = true;
        let (count, gone) = product.cells.add(other);
        if let Some(gone) = gone.filter(|gone| product.top.iter().any(|(id, _)| id == gone)) {
            product.top.retain(|(id, _)| *id != gone);
        }
        if product.rank(other, count, &self.names) && !product.moved {
            product.moved = true;
            self.moved.push(of);
        }
    }

    /// The products whose most frequent neighbours are others, or in another order, than at the last call.
    pub fn take_moved(&mut self) -> Vec<u32> {
        let moved = std::mem::take(&mut self.moved);
        for number in &moved {
            if let Some(Some(product)) = self.products.get_mut(*number as usize) {
                product.moved = false;
            }
        }
        moved
    }

    /// The most frequent neighbours of a product.
    pub fn top(&self, number: u32) -> Vec<(Arc<str>, u32)> {
        let product = self.products.get(number as usize).and_then(Option::as_ref);
        product.map(|p| p.top.iter().map(|(other, count)| (self.names.text(*other), *count)).collect()).unwrap_or_default()
    }

    /// The row of the next product at or after `from` that has changed since its row was written, with its number.
    pub fn next_row(&mut self, from: u32, through: u64) -> Option<(u32, Vec<u8>)> {
        let rest = self.products.iter_mut().enumerate().skip(from as usize);
        let (number, product) = rest.filter_map(|(n, p)| Some((n as u32, p.as_mut()?))).find(|(_, p)| p.changed)?;
        product.changed = false;
        product.through = through;
        let mut row = Vec::new();
        put_number(through, &mut row);
        product.cells.write(&mut row);
        Some((number, row))
    }

    /// Takes a product's row; `None` where it can't be read.
    pub fn take_row(&mut self, number: u32, row: &[u8]) -> Option<()> {
        let mut reader = Reader(row);
        let product = self.products.get_mut(number as usize)?.as_mut()?;
        product.through = reader.number()?;
        product.cells = Cells::read(self.mode, &mut reader)?;
        product.top.clear();
        let all: Vec<_> = product.cells.iter().collect();
        for (other, count) in all {
            product.rank(other, count, &self.names);
        }
        Some(())
    }

    /// All counts, by product and other.
    pub fn all(&self) -> FxHashMap<(&str, &str), u32> {
        let products = self.products.iter().enumerate().filter_map(|(n, p)| Some((self.names.as_str(n as u32), p.as_ref()?)));
        products.flat_map(|(of, p)| p.cells.iter().map(move |(other, count)| ((of, self.names.as_str(other)), count))).collect()
    }
}

impl Product {
    /// Puts a neighbour where its count belongs; says whether order or members changed.
    fn rank(&mut self, other: u32, count: u32, names: &Names) -> bool {
        let before = |a: (u32, u32), b: (u32, u32)| match b.1.cmp(&a.1) {
            Ordering::Equal => names.precedes(a.0, b.0),
            order => order == Ordering::Less,
        };
        let known = self.top.iter().position(|(id, _)| *id == other);
        if known.is_none() && self.top.len() == TOP && self.top.last().is_some_and(|last| before(*last, (other, count))) {
            return false;
        }
        if let Some(known) = known {
            self.top.remove(known);
        }
        let at = self.top.partition_point(|entry| before(*entry, (other, count)));
        self.top.insert(at, (other, count));
        self.top.truncate(TOP);
        known != Some(at)
    }
}
