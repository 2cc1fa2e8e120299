//! Broadcast tables: what every task sees whole. Reference tables keep versions by `valid_from` and are looked up as
//! of event time; the others hold the latest known.

use rustc_hash::FxHashMap;
use std::{
    any::{Any, TypeId},
    collections::BTreeSet,
    sync::Arc,
};
use tillflow_schemas::{
    Badge, Campaign, Challenge, Change, Customer, ErasedUser, Event, Plan, PricingRule, ProductPrice, ProductStatus, Record, Reference,
    RelatedProducts, Reward, SegmentDefinition, Template, Timestamp,
};

/// Versions kept of one record; the oldest go first.
const VERSIONS: usize = 1_000;

type Versions<V> = Vec<(Timestamp, Option<Arc<V>>)>;

/// One table. A record is looked up many times an event, listed seldom.
struct Table<V> {
    records: FxHashMap<Arc<str>, Versions<V>>,
    /// The ids in order.
    ids: BTreeSet<Arc<str>>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { records: FxHashMap::default(), ids: BTreeSet::new() }
    }
}

impl<V> Table<V> {
    fn versions(&mut self, id: &str) -> &mut Versions<V> {
        let id = self.ids.get(id).cloned().unwrap_or_else(|| {
            let id: Arc<str> = id.into();
            self.ids.insert(id.clone());
            id
        });
        self.records.entry(id).or_default()
    }
}

/// All broadcast tables.
#[derive(Default)]
pub struct Globals {
    tables: FxHashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl Globals {
    /// The version of `id` that counts at `at`.
    pub fn get<V: Record>(&self, id: &str, at: Timestamp) -> Option<Arc<V>> {
        version(self.table::<V>()?.records.get(id)?, at).cloned()
    }

    /// All records that count at `at`, by id.
    pub fn all<V: Record>(&self, at: Timestamp) -> impl Iterator<Item = (&str, &Arc<V>)> {
        let listed = self.table::<V>().into_iter().flat_map(|table| table.ids.iter().map(|id| (&**id, table.records.get(id))));
        listed.filter_map(move |(id, versions)| Some((id, version(versions?, at)?)))
    }

    /// Whether what was recorded of a user at `at` is from before their erasure.
    pub fn is_erased(&self, user: &str, at: Timestamp) -> bool {
        self.get::<ErasedUser>(user, Timestamp::MAX).is_some_and(|erased| at <= erased.erased_at)
    }

    /// All versions of `id` that are kept, the oldest first: from when each counts, and nothing where it was deleted.
    pub fn versions<V: Record>(&self, id: &str) -> impl Iterator<Item = (Timestamp, Option<&Arc<V>>)> {
        let versions = self.table::<V>().and_then(|table| table.records.get(id));
        versions.into_iter().flatten().map(|(from, value)| (*from, value.as_ref()))
    }

    fn table<V: Record>(&self) -> Option<&Table<V>> {
        self.tables.get(&TypeId::of::<V>())?.downcast_ref()
    }

    /// Takes a record of a broadcast topic; `logged_at` is when the log got it. Others are ignored.
    pub fn apply(&mut self, event: &Event, logged_at: Timestamp) {
        match event {
            Event::Product(c) => self.version(c, logged_at),
            Event::Customer(c) => self.version::<Customer>(c, logged_at),
            Event::PricingRule(c) => self.version::<PricingRule>(c, logged_at),
            Event::Plan(c) => self.version::<Plan>(c, logged_at),
            Event::Campaign(c) => self.version::<Campaign>(c, logged_at),
            Event::Reward(c) => self.version::<Reward>(c, logged_at),
            Event::Challenge(c) => self.version::<Challenge>(c, logged_at),
            Event::Badge(c) => self.version::<Badge>(c, logged_at),
            Event::SegmentDefinition(c) => self.version::<SegmentDefinition>(c, logged_at),
            Event::Template(c) => self.version::<Template>(c, logged_at),
            Event::ErasedUser(c) => self.version::<ErasedUser>(c, logged_at),
            Event::RelatedProducts(v) => self.latest::<RelatedProducts>(v),
            Event::ProductStatus(v) => self.latest::<ProductStatus>(v),
            Event::ProductPrice(v) => self.latest::<ProductPrice>(v),
            _ => {}
        }
    }

    fn version<V: Reference>(&mut self, change: &Change<V>, logged_at: Timestamp) {
        let versions = self.table_mut::<V>().versions(&change.id);
        let stated = change.value.as_ref().and_then(Reference::valid_from);
        // The first version has always counted; a later one that does not say counts from when it was logged.
        let from = stated.unwrap_or(if versions.is_empty() { Timestamp::MIN } else { logged_at });
        let value = change.value.clone().map(Arc::new);
        let at = versions.partition_point(|(t, _)| *t < from);
        match versions.get_mut(at) {
            Some(same) if same.0 == from => same.1 = value,
            _ => versions.insert(at, (from, value)),
        }
        if versions.len() > VERSIONS {
            versions.remove(0);
        }
    }

    fn latest<V: Record>(&mut self, value: &V) {
        *self.table_mut::<V>().versions(value.key()) = vec![(Timestamp::MIN, Some(Arc::new(value.clone())))];
    }

    #[allow(clippy::expect_used, reason = "the map's key is the value's type")]
    fn table_mut<V: Record>(&mut self) -> &mut Table<V> {
        let table = self.tables.entry(TypeId::of::<V>()).or_insert_with(|| Box::new(Table::<V>::default()));
        table.downcast_mut().expect("a table is kept under its own type")
    }
}

fn version<V>(versions: &[(Timestamp, Option<Arc<V>>)], at: Timestamp) -> Option<&Arc<V>> {
    let after = versions.partition_point(|(from, _)| *from <= at);
    versions.get(after.checked_sub(1)?)?.1.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, from: Option<i64>) -> Event {
        Plan { plan_id: "p".into(), name: name.into(), valid_from: from.map(Timestamp::from_millis), ..Plan::default() }.into_event()
    }

    #[test]
    fn the_first_version_always_counts_and_later_ones_from_when_they_say_or_were_logged() {
        let mut globals = Globals::default();
        let name = |g: &Globals, at| g.get::<Plan>("p", Timestamp::from_millis(at)).map(|p| p.name.clone());
        globals.apply(&plan("first", None), Timestamp::from_millis(100));
        globals.apply(&plan("second", None), Timestamp::from_millis(200));
        globals.apply(&plan("between", Some(150)), Timestamp::from_millis(300));
        assert_eq!(name(&globals, 0).as_deref(), Some("first"));
        assert_eq!(name(&globals, 150).as_deref(), Some("between"));
        assert_eq!(name(&globals, 200).as_deref(), Some("second"));
        globals.apply(&Event::Plan(Change { id: "p".into(), value: None }), Timestamp::from_millis(400));
        assert_eq!(name(&globals, 399).as_deref(), Some("second"));
        assert_eq!(name(&globals, 400), None);
        assert_eq!(globals.all::<Plan>(Timestamp::from_millis(0)).count(), 1);
        let versions: Vec<_> = globals.versions::<Plan>("p").map(|(_, p)| p.map(|p| p.name.clone()).unwrap_or_default()).collect();
        assert_eq!(versions, ["first", "between", "second", ""]);
        assert_eq!(globals.versions::<Plan>("q").count(), 0);
    }

    #[test]
    fn an_erasure_counts_until_it_is_taken_back_and_again_when_it_is_said_again() {
        let mut globals = Globals::default();
        let at = Timestamp::from_millis;
        let erased = |until| ErasedUser { user_id: "ann".into(), erased_at: at(until) }.into_event();
        globals.apply(&erased(10), at(20));
        assert_eq!([9, 10, 11].map(|t| globals.is_erased("ann", at(t))), [true, true, false]);
        globals.apply(&Event::ErasedUser(Change { id: "ann".into(), value: None }), at(30));
        assert!(!globals.is_erased("ann", at(9)));
        globals.apply(&erased(35), at(40));
        assert!(globals.is_erased("ann", at(35)) && !globals.is_erased("ben", at(35)));
    }
}
