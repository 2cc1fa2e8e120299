//! Which topics connect which groups: worked out from what processors declare and what the list of topics says.

use crate::{config::EngineConfig, metrics::Metrics, worker::Shared, worker::input::MARK};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tillflow_engine_api::{CheckFn, Group};
use tillflow_schemas::{Catalog, Codec, ErasedUser, Record as _, Role};

/// One group, wired.
pub struct Wired {
    /// The group.
    pub group: Group,
    /// Topics of its inputs, the lead first.
    pub inputs: Vec<usize>,
    /// Partitions of each of them.
    pub partitions: u32,
    /// What its tasks share.
    pub shared: Arc<Shared>,
}

/// All groups, wired.
pub struct Wiring {
    /// The groups.
    pub groups: Vec<Wired>,
    /// Topics of the broadcast tables.
    pub globals: Vec<usize>,
}

/// What is wrong with the topology or its settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct WiringError(pub Vec<String>);

/// Wires the groups.
///
/// # Errors
/// Lists everything that is wrong.
pub fn wire(
    groups: &[Group],
    catalog: &Arc<Catalog>,
    codec: &Arc<Codec>,
    config: &EngineConfig,
    metrics: &Metrics,
) -> Result<Wiring, WiringError> {
    let mut problems: Vec<String> = groups.iter().flat_map(|g| g.problems(catalog)).collect();
    let topic = |schema: &str| catalog.of_schema(schema).and_then(|t| catalog.index(&t.name));
    let mut definitions = unprocessed(groups, catalog);
    let mut wired = Vec::new();
    let mut globals = BTreeSet::new();
    for group in groups {
        let mut inputs: Vec<usize> = group.inputs().into_iter().filter_map(topic).collect();
        let rekeyed = catalog.of_group(Role::Rekey, group.name).and_then(|t| catalog.index(&t.name));
        inputs.extend(rekeyed);
        if group.upstream.is_none() {
            inputs.extend(topic(MARK));
            // Read twice: as a record in the order of time it wipes what the task has; as a table it tells the past.
            let erased = topic(ErasedUser::SCHEMA);
            inputs.extend(erased);
            globals.extend(erased);
        }
        // The first group takes them all: one task each record.
        let definitions = std::mem::take(&mut definitions);
        inputs.extend(definitions.keys());
        let partitions = inputs.first().and_then(|i| catalog.topics().get(*i)).map_or(0, |t| t.partitions);
        for input in inputs.iter().filter_map(|i| catalog.topics().get(*i)) {
            if input.partitions != partitions {
                problems.push(format!(
                    "group {}: topic {} has {} partitions, {} has {partitions}; the inputs of a group need the same number",
                    group.name, input.name, input.partitions, group.lead
                ));
            }
        }
        let between = |up: &Group, down: &Group| -> Vec<usize> {
            let emitted: BTreeSet<_> = up.parts.iter().flat_map(|p| p.declared.outputs.iter().copied()).collect();
            down.inputs().into_iter().filter(|s| emitted.contains(s)).filter_map(topic).collect()
        };
        let announces: BTreeSet<usize> =
            groups.iter().filter(|g| g.upstream == Some(group.name)).flat_map(|down| between(group, down)).collect();
        let upstream = groups.iter().find(|g| Some(g.name) == group.upstream);
        let listens = upstream.map_or((Vec::new(), 0), |up| {
            (between(up, group), topic(up.lead).and_then(|t| catalog.topics().get(t)).map_or(0, |t| t.partitions))
        });
        globals.extend(group.parts.iter().flat_map(|p| p.declared.globals.iter().chain(&p.declared.latest)).filter_map(|s| topic(s)));
        let shared = Shared {
            catalog: catalog.clone(),
            codec: codec.clone(),
            config: config.clone(),
            metrics: metrics.clone(),
            announces: announces.into_iter().collect(),
            listens,
            rekeyed,
            definitions,
            topics: catalog.topics().iter().enumerate().map(|(i, t)| (t.schema.clone(), i)).collect(),
        };
        wired.push(Wired { group: group.clone(), inputs, partitions, shared: Arc::new(shared) });
    }
    if problems.is_empty() { Ok(Wiring { groups: wired, globals: globals.into_iter().collect() }) } else { Err(WiringError(problems)) }
}

/// Topics of what the shop states about itself that no group processes, with what is checked of it. Broadcast tables take
/// what they can read of them, at every instance; what is wrong has to become a dead letter, once.
fn unprocessed(groups: &[Group], catalog: &Catalog) -> BTreeMap<usize, Vec<CheckFn>> {
    let processed: BTreeSet<_> = groups.iter().flat_map(Group::inputs).chain([ErasedUser::SCHEMA]).collect();
    let checks = |schema: &str| {
        let all = groups.iter().flat_map(|g| &g.parts).flat_map(|p| &p.declared.checks);
        all.filter(|(of, _)| *of == schema).map(|(_, check)| check.clone()).collect()
    };
    let stated = catalog.topics().iter().enumerate().filter(|(_, t)| t.role == Role::Reference);
    stated.filter(|(_, t)| !processed.contains(t.schema.as_str())).map(|(i, t)| (i, checks(&t.schema))).collect()
}
