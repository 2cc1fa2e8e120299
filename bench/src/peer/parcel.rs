//! What crosses between the stages: one record a commit and product partition. It names each product once and then
//! speaks in numbers: the demand for products, and for each product that came into a session those it met there.
//!
//! A product that meets nine others makes eighteen counts; here it is ten numbers for its own partition, and fewer for
//! the others' ones.

use super::{
    bytes::{Reader, put_number, put_text},
    names::Names,
};
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::sync::Arc;
use tillflow_engine_api::Combine;
use tillflow_schemas::Parcel;

/// Half-life of demand.
const HALF_LIFE_MS: f64 = 3_600_000.0;

/// What is left of a score after so long.
pub fn decayed(score: f64, ms: i64) -> f64 {
    if ms <= 0 { score } else { score * (-(ms as f64) / HALF_LIFE_MS).exp2() }
}

/// Demand for one product at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Which.
    pub product: u32,
    /// Decayed to then.
    pub score: f64,
    /// Milliseconds.
    pub at: i64,
}

impl Demand {
    fn add(&mut self, other: &Self) {
        let at = self.at.max(other.at);
        self.score = decayed(self.score, at - self.at) + decayed(other.score, at - other.at);
        self.at = at;
    }
}

/// What one customers task has to say to one products task, collected within a commit.
pub struct Bundle {
    /// The products partition.
    pub to: u32,
    /// Of how many.
    pub partitions: u32,
    /// The numbers' meaning.
    pub names: Arc<RwLock<Names>>,
    /// Demand, in the order of events.
    pub demands: SmallVec<[Demand; 1]>,
    /// Again and again: a product, how many it met, these.
    pub meetings: SmallVec<[u32; 12]>,
}

impl Combine for Bundle {
    type Out = Parcel;

    fn slot(&self) -> String {
        self.to.to_string()
    }

    /// Meetings are counted and demand is summed up: the order does not matter.
    fn absorb(&mut self, other: Self) {
        self.demands.extend(other.demands);
        self.meetings.extend(other.meetings);
    }

    fn finish(self) -> Parcel {
        let names = self.names.read();
        let mut local = Local { numbers: vec![u32::MAX; names.len()], used: Vec::new() };
        let mut demands: Vec<Demand> = Vec::new();
        for demand in &self.demands {
            let product = local.number(demand.product);
            match demands.get_mut(product as usize) {
                Some(sum) => sum.add(demand),
                None => demands.push(Demand { product, ..*demand }),
            }
        }
        let mut meetings = Vec::with_capacity(self.meetings.len() * 2);
        let mut rest = self.meetings.as_slice();
        while let [product, count, tail @ ..] = rest {
            let (others, tail) = tail.split_at_checked(*count as usize).unwrap_or_default();
            put_number(local.number(*product).into(), &mut meetings);
            put_number(others.len() as u64, &mut meetings);
            others.iter().for_each(|other| put_number(local.number(*other).into(), &mut meetings));
            rest = tail;
        }
        let latest = demands.iter().map(|d| d.at).max().unwrap_or_default();
        let mut body = latest.to_le_bytes().to_vec();
        put_number(local.used.len() as u64, &mut body);
        local.used.iter().for_each(|number| put_text(names.as_str(*number), &mut body));
        put_number(demands.len() as u64, &mut body);
        for demand in &demands {
            put_number((latest - demand.at).unsigned_abs(), &mut body);
            body.extend_from_slice(&(demand.score as f32).to_le_bytes());
        }
        body.extend_from_slice(&meetings);
        Parcel { key: Parcel::key_of(self.to, self.partitions), body }
    }
}

/// Numbers within one parcel, by those of the sender. Products with demand come first.
struct Local {
    numbers: Vec<u32>,
    used: Vec<u32>,
}

impl Local {
    fn number(&mut self, of: u32) -> u32 {
        let Some(number) = self.numbers.get_mut(of as usize) else { return 0 };
        if *number == u32::MAX {
            *number = self.used.len() as u32;
            self.used.push(of);
        }
        *number
    }
}

/// A parcel, opened.
pub struct Content<'a> {
    /// The products it speaks of.
    pub names: Vec<&'a str>,
    /// Demand for the first of them, in their order.
    pub demands: Vec<Demand>,
    meetings: Reader<'a>,
}

impl<'a> Content<'a> {
    /// Opens a parcel's body; `None` where it is none.
    pub fn open(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let latest = i64::from_le_bytes(reader.array()?);
        let names = (0..reader.number()?).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
        let mut demands = Vec::new();
        for product in 0..reader.small()? {
            let at = latest.checked_sub_unsigned(reader.number()?)?;
            demands.push(Demand { product, score: f32::from_le_bytes(reader.array()?).into(), at });
        }
        Some(Self { names, demands, meetings: reader })
    }

    /// Calls `met` for every product that met others; false where the parcel is damaged.
    pub fn meetings(&self, mut met: impl FnMut(u32, &[u32])) -> Option<()> {
        let (mut reader, mut others) = (self.meetings, Vec::new());
        while !reader.is_empty() {
            let product = reader.small()?;
            others.clear();
            for _ in 0..reader.number()? {
                others.push(reader.small()?);
            }
            met(product, &others);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_with_demand_summed_up() {
        let names = Arc::new(RwLock::new(Names::new(4)));
        for n in 0..300 {
            names.write().number(&format!("p{n}"));
        }
        let bundle = |score, at, meetings: &[u32]| Bundle {
            to: 2,
            partitions: 4,
            names: names.clone(),
            demands: [Demand { product: 7, score, at }].into(),
            meetings: meetings.into(),
        };
        let mut all = bundle(1.0, 3_600_000, &[7, 2, 1, 299]);
        all.absorb(bundle(2.0, 0, &[1, 1, 7]));
        let parcel = all.finish();
        assert_eq!(tillflow_schemas::partition::partition(parcel.key.as_bytes(), 4), 2);
        let content = Content::open(&parcel.body).unwrap();
        assert_eq!(content.names, ["p7", "p1", "p299"]);
        assert_eq!(content.demands, [Demand { product: 0, score: 2.0, at: 3_600_000 }]);
        let mut met = Vec::new();
        content.meetings(|product, others| met.push((product, others.to_vec()))).unwrap();
        assert_eq!(met, [(0, vec![1, 2]), (1, vec![0])]);
        assert!(Content::open(&parcel.body[..12]).is_none());
    }
}
