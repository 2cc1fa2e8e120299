//! Which processors make up which task group.

use crate::{Declare, Declared, Processor};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use tillflow_schemas::{Catalog, Record, Role};

type Make = Arc<dyn Fn(&Map<String, Value>) -> (Box<dyn Processor>, Declared) + Send + Sync>;

/// One processor of a group: how it is made, and what it declared.
#[derive(Clone)]
pub struct Part {
    /// Its name, as dead letters and metrics give it.
    pub name: &'static str,
    make: Make,
    /// What it declared.
    pub declared: Declared,
}

impl Part {
    /// A fresh instance, for one task.
    pub fn instance(&self, settings: &Map<String, Value>) -> Box<dyn Processor> {
        (self.make)(settings).0
    }
}

/// One task group: processors that share a key and run in order on each record.
#[derive(Clone)]
pub struct Group {
    /// `customers` or `products`.
    pub name: &'static str,
    /// Schema of the topic the consumer group subscribes to; the other inputs follow its partitions.
    pub lead: &'static str,
    /// The group whose watermarks are this one's clock; `None` where it reads the shop's events itself.
    pub upstream: Option<&'static str>,
    /// Whether an event whose own id was seen before is a duplicate.
    pub by_event_id: bool,
    /// Its processors, in order.
    pub parts: Vec<Part>,
    /// The settings its processors are made with.
    pub settings: Map<String, Value>,
}

impl Group {
    /// A group without processors.
    pub fn new<Lead: Record>(name: &'static str, upstream: Option<&'static str>, settings: &Map<String, Value>) -> Self {
        Self { name, lead: Lead::SCHEMA, upstream, by_event_id: true, parts: Vec::new(), settings: settings.clone() }
    }

    /// Keeps no events' own ids: what happens once (an order, a refund, a command) is told by its id alone. For inputs
    /// whose producers write each event once.
    #[must_use]
    pub fn without_event_ids(mut self) -> Self {
        self.by_event_id = false;
        self
    }

    /// Adds a processor after those it has.
    #[must_use]
    pub fn with<P: Processor + 'static>(mut self, name: &'static str) -> Self {
        let make: Make = Arc::new(|settings| {
            let mut declare = Declare::new(settings);
            let processor = P::declare(&mut declare);
            (Box::new(processor), declare.finish())
        });
        let declared = make(&self.settings).1;
        self.parts.push(Part { name, make, declared });
        self
    }

    /// The schemas of all records its processors process, the lead first.
    pub fn inputs(&self) -> Vec<&'static str> {
        let mut inputs = vec![self.lead];
        for schema in self.parts.iter().flat_map(|p| &p.declared.inputs) {
            if !inputs.contains(schema) {
                inputs.push(schema);
            }
        }
        inputs
    }

    /// Who declares each of these names; a name or its stored prefix can be declared once.
    fn owners(&self, names: fn(&Declared) -> &Vec<&'static str>, problems: &mut Vec<String>) -> BTreeMap<&'static str, &'static str> {
        let mut owners = BTreeMap::new();
        let mut prefixes = BTreeMap::new();
        for part in &self.parts {
            for name in names(&part.declared) {
                if let Some(other) = owners.insert(*name, part.name) {
                    problems.push(format!("{} and {other} both declare {name}", part.name));
                } else if let Some(other) = prefixes.insert(tillflow_state::prefix_of(name), *name) {
                    problems.push(format!("{name} and {other} have the same prefix; rename one"));
                }
            }
        }
        owners
    }

    /// What is wrong with the group: undeclared, doubly owned or unknown things. Checked at start, so that nothing of
    /// it can go wrong at runtime.
    pub fn problems(&self, catalog: &Catalog) -> Vec<String> {
        let mut problems: Vec<String> = self.parts.iter().flat_map(|p| p.declared.problems.clone()).collect();
        let owners = self.owners(|d| &d.stores, &mut problems);
        self.owners(|d| &d.timers, &mut problems);
        let declared =
            |f: fn(&Declared) -> &Vec<&'static str>| self.parts.iter().flat_map(move |p| f(&p.declared).iter().map(|s| (p.name, *s)));
        for (part, table) in declared(|d| &d.reads) {
            if !owners.contains_key(table) {
                problems.push(format!("{part} reads {table}, which nobody declares"));
            }
        }
        for (part, schema) in declared(|d| &d.follows) {
            if !declared(|d| &d.outputs).any(|(_, s)| s == schema) {
                problems.push(format!("{part} follows {schema}, which nobody of its group emits"));
            }
        }
        for (part, schema) in
            declared(|d| &d.inputs).chain(declared(|d| &d.outputs)).chain(declared(|d| &d.globals)).chain(declared(|d| &d.latest))
        {
            if catalog.of_schema(schema).is_none() {
                problems.push(format!("{part} uses {schema}, for which topics.yaml has no topic"));
            }
        }
        for (part, schema) in declared(|d| &d.globals) {
            if catalog.of_schema(schema).is_some_and(|t| t.role != Role::Reference) {
                problems.push(format!("{part} looks up versions of {schema}, whose topic is not a reference"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Result, TimerKind};
    use tillflow_schemas::{Event, LoyaltyUpdate, Notification, Plan, UserEvent};
    use tillflow_state::Table;

    /// Counts what users do, and says so.
    struct Counting;

    impl Processor for Counting {
        fn declare(d: &mut Declare<'_>) -> Self {
            d.input::<UserEvent>();
            let _: Table<String, u64> = d.store("counting.seen");
            let _: TimerKind = d.timer("counting.remind");
            d.global::<Plan>();
            d.output::<Notification>();
            Self
        }

        fn process(&mut self, _: &Event, _: &mut Context<'_>) -> Result<()> {
            Ok(())
        }
    }

    /// Wants what nobody gives, and takes what is another's.
    struct Wanting;

    impl Processor for Wanting {
        fn declare(d: &mut Declare<'_>) -> Self {
            d.follow::<LoyaltyUpdate>();
            d.follow::<Notification>();
            let _: Table<String, u64> = d.read("wanting.nowhere");
            let _: Table<String, u64> = d.store("counting.seen");
            let _: TimerKind = d.timer("counting.remind");
            Self
        }

        fn process(&mut self, _: &Event, _: &mut Context<'_>) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_undeclared_or_owned_twice_is_found_at_the_start() {
        let catalog = Catalog::built_in(1).unwrap();
        let group = Group::new::<UserEvent>("customers", None, &Map::new()).with::<Counting>("counting");
        assert_eq!(group.problems(&catalog), Vec::<String>::new());
        assert_eq!(
            group.with::<Wanting>("wanting").problems(&catalog),
            [
                "wanting and counting both declare counting.seen",
                "wanting and counting both declare counting.remind",
                "wanting reads wanting.nowhere, which nobody declares",
                "wanting follows loyalty_update, which nobody of its group emits",
            ]
        );
    }
}
