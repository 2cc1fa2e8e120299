//! The group coordinator: membership, rebalances, committed offsets; and the part of each member's client that runs in
//! the background: heartbeats, joining, handing changes to the poll.

use super::dice::Dice;
use crate::log::{Membership, TopicPartition};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// How often members say that they live.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a rebalance waits for members that do not answer.
const REBALANCE: Duration = Duration::from_secs(60);

/// The client of one worker.
pub type ClientId = u64;

/// A member as the coordinator knows it.
#[derive(Clone, Debug)]
struct Member {
    id: u64,
    client: ClientId,
    heard: Duration,
    joined: bool,
    claims: BTreeSet<u32>,
    assigned: BTreeSet<u32>,
}

/// A member's client.
#[derive(Clone, Debug)]
struct Client {
    instance: String,
    /// Its member id and generation, once it joined.
    membership: Option<(u64, u64)>,
    owned: BTreeSet<u32>,
    changes: VecDeque<Membership>,
    /// Partitions it was told to give up and did not yet.
    giving_up: BTreeSet<u32>,
    fenced: bool,
    /// Neither frozen nor cut off.
    reachable: bool,
    next_heartbeat: Duration,
}

/// What a commit of offsets is refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The generation is not the group's.
    Generation,
    /// The group does not know the member.
    Member,
    /// Another process took the instance's place.
    Instance,
}

/// An offset, and who committed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: i64,
    /// The transactional id that committed it.
    pub writer: String,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct ConsumerGroup {
    partitions: u32,
    /// All give up everything at each rebalance.
    eager: bool,
    /// After so long without a heartbeat a member counts as dead.
    session: Duration,
    generation: u64,
    /// Until when a rebalance waits for members to join.
    preparing: Option<Duration>,
    members: BTreeMap<String, Member>,
    clients: BTreeMap<ClientId, Client>,
    next_member: u64,
    /// Committed offsets.
    pub offsets: BTreeMap<TopicPartition, Committed>,
    /// Offsets of open transactions, by writer's number.
    pending: BTreeMap<u32, Vec<(TopicPartition, Committed)>>,
    /// Rebalances so far.
    pub rebalances: u64,
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new(partitions: u32, eager: bool, session: Duration) -> Self {
        Self {
            partitions,
            eager,
            session,
            generation: 0,
            preparing: None,
            members: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_member: 1,
            offsets: BTreeMap::new(),
            pending: BTreeMap::new(),
            rebalances: 0,
        }
    }

    /// A client that will join as `instance`.
    pub fn subscribe(&mut self, client: ClientId, instance: &str, now: Duration) {
        let fresh = Client {
            instance: instance.to_owned(),
            membership: None,
            owned: BTreeSet::new(),
            changes: VecDeque::new(),
            giving_up: BTreeSet::new(),
            fenced: false,
            reachable: true,
            next_heartbeat: now,
        };
        self.clients.insert(client, fresh);
    }

    /// The process of a client ended.
    pub fn gone(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// The member of a client leaves for good.
    pub fn leave(&mut self, client: ClientId, now: Duration) {
        if let Some(gone) = self.clients.remove(&client)
            && self.members.get(&gone.instance).is_some_and(|m| m.client == client)
        {
            self.members.remove(&gone.instance);
            self.rebalance(now);
        }
    }

    /// A client gives its membership up, and joins once it has given up what it had.
    pub fn start_over(&mut self, id: ClientId, now: Duration) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.membership = None;
        client.giving_up = client.owned.clone();
        client.changes.push_back(Membership::Revoked(client.owned.iter().copied().collect()));
        if self.members.get(&client.instance).is_some_and(|m| m.client == id) {
            self.members.remove(&client.instance);
            self.rebalance(now);
        }
    }

    /// Whether a client's heartbeats arrive.
    pub fn set_reachable(&mut self, client: ClientId, reachable: bool) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.reachable = reachable;
        }
    }

    /// The changes that a poll is to bring, in order; `None` once another process took the instance's place.
    pub fn changes(&mut self, client: ClientId) -> Option<Vec<Membership>> {
        let client = self.clients.get_mut(&client)?;
        (!client.fenced).then(|| client.changes.drain(..).collect())
    }

    /// Partitions are given up. What the client was not told to give up it keeps for its own.
    pub fn release(&mut self, client: ClientId, partitions: &[u32], now: Duration) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        for p in partitions.iter().filter(|p| client.giving_up.remove(p)) {
            client.owned.remove(p);
        }
        if client.giving_up.is_empty() && client.membership.is_some() && !self.eager {
            self.rebalance(now);
        }
    }

    /// Member id and generation, as the client knows them.
    pub fn metadata(&self, client: ClientId) -> Option<(u64, u64)> {
        self.clients.get(&client)?.membership
    }

    /// What a client owns, as it sees it.
    pub fn owned(&self, client: ClientId) -> BTreeSet<u32> {
        self.clients.get(&client).map(|c| c.owned.clone()).unwrap_or_default()
    }

    /// Whether the group rests: all that there are have joined and hold all partitions.
    pub fn is_stable(&self) -> bool {
        let held: usize = self.clients.values().map(|c| c.owned.len()).sum();
        self.preparing.is_none() && held == self.partitions as usize && self.clients.values().all(|c| c.changes.is_empty())
    }

    /// Checks who commits.
    fn check(&self, client: ClientId, metadata: Option<(u64, u64)>) -> Result<(), Stale> {
        // To the coordinator, who is no member commits for a group without any.
        let Some((id, generation)) = metadata else {
            return if self.members.is_empty() { Ok(()) } else { Err(Stale::Member) };
        };
        let instance = self.clients.get(&client).map(|c| c.instance.as_str()).unwrap_or_default();
        match self.members.get(instance) {
            None => Err(Stale::Member),
            Some(member) if member.id != id => Err(Stale::Instance),
            Some(_) if self.generation != generation => Err(Stale::Generation),
            Some(_) => Ok(()),
        }
    }

    /// Takes offsets into a transaction.
    pub fn add_offsets(
        &mut self,
        client: ClientId,
        metadata: Option<(u64, u64)>,
        writer: u32,
        offsets: Vec<(TopicPartition, Committed)>,
        unfenced: bool,
    ) -> Result<(), Stale> {
        if !unfenced {
            self.check(client, metadata)?;
        }
        self.pending.entry(writer).or_default().extend(offsets);
        Ok(())
    }

    /// The marker of a writer's transaction has arrived.
    pub fn decide(&mut self, writer: u32, committed: bool) {
        for (at, offset) in self.pending.remove(&writer).unwrap_or_default() {
            if committed {
                self.offsets.insert(at, offset);
            }
        }
    }

    /// Whether no transaction holds these back.
    pub fn are_stable(&self, inputs: &[TopicPartition]) -> bool {
        !self.pending.values().flatten().any(|(at, _)| inputs.contains(at))
    }

    fn rebalance(&mut self, now: Duration) {
        if self.preparing.is_none() {
            self.rebalances += 1;
            for member in self.members.values_mut() {
                member.joined = false;
            }
        }
        self.preparing.get_or_insert(now + REBALANCE);
    }

    /// The coordinator is away until then; sessions begin anew when it is back.
    pub fn pause_until(&mut self, until: Duration) {
        for member in self.members.values_mut() {
            member.heard = member.heard.max(until);
        }
        self.preparing = self.preparing.map(|_| until + REBALANCE);
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Duration> {
        let heartbeats = self.clients.values().filter(|c| c.reachable && !c.fenced).map(|c| c.next_heartbeat);
        let sessions = self.members.values().map(|m| m.heard + self.session + Duration::from_millis(1));
        heartbeats.chain(sessions).chain(self.preparing).min()
    }

    /// What happens by now.
    pub fn tick(&mut self, now: Duration, dice: &mut Dice) {
        let due: Vec<_> =
            self.clients.iter().filter(|(_, c)| c.reachable && !c.fenced && c.next_heartbeat <= now).map(|(id, _)| *id).collect();
        for client in due {
            self.heartbeat(client, now, dice);
            if let Some(client) = self.clients.get_mut(&client) {
                client.next_heartbeat = now + if self.preparing.is_some() { dice.millis(5, 100) } else { HEARTBEAT };
            }
        }
        let (before, session) = (self.members.len(), self.session);
        self.members.retain(|_, m| now.saturating_sub(m.heard) <= session);
        if self.members.len() < before {
            self.rebalance(now);
        }
        if let Some(deadline) = self.preparing {
            if now >= deadline {
                self.members.retain(|_, m| m.joined);
            }
            if self.members.values().all(|m| m.joined) {
                self.complete();
                let waiting: Vec<_> = self.clients.keys().copied().collect();
                waiting.into_iter().for_each(|client| self.sync(client));
            }
        }
    }

    /// One heartbeat of a client, and what it does upon the answer.
    fn heartbeat(&mut self, id: ClientId, now: Duration, dice: &mut Dice) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some((member_id, _)) = client.membership else {
            // Rejoins only once it has given up what it lost.
            if client.giving_up.is_empty() && client.changes.is_empty() {
                self.join(id, now);
            }
            return;
        };
        match self.members.get_mut(&client.instance) {
            Some(member) if member.id == member_id => {
                member.heard = now;
                if self.preparing.is_some() && !member.joined && client.giving_up.is_empty() {
                    if self.eager && !client.owned.is_empty() {
                        client.giving_up = client.owned.clone();
                        client.changes.push_back(Membership::Revoked(client.owned.iter().copied().collect()));
                    } else {
                        member.joined = true;
                        member.claims = client.owned.clone();
                    }
                }
            }
            Some(_) => client.fenced = true,
            // Told so when it joins, librdkafka joins as another member and keeps what it had.
            None if !self.eager && client.giving_up.is_empty() && client.changes.is_empty() && !dice.one_in(5) => self.join(id, now),
            None => {
                client.membership = None;
                client.changes.clear();
                if !client.owned.is_empty() {
                    client.giving_up = client.owned.clone();
                    client.changes.push_back(Membership::Lost(client.owned.iter().copied().collect()));
                }
            }
        }
        self.sync(id);
    }

    fn join(&mut self, id: ClientId, now: Duration) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let member_id = self.next_member;
        self.next_member += 1;
        client.membership = Some((member_id, 0));
        match self.members.get_mut(&client.instance) {
            // A static member that is back takes its place, and its former self is fenced.
            Some(member) => {
                member.id = member_id;
                member.client = id;
                member.heard = now;
                member.claims = client.owned.clone();
                member.joined = self.preparing.is_some();
                // What it had been told to give up is nobody's yet; one of its kind notices.
                let assigned: usize = self.members.values().map(|m| m.assigned.len()).sum();
                if assigned < self.partitions as usize {
                    self.rebalance(now);
                    if let Some(member) = self.clients.get(&id).and_then(|c| self.members.get_mut(&c.instance)) {
                        member.joined = true;
                    }
                }
                self.sync(id);
            }
            None => {
                let claims = client.owned.clone();
                let fresh = Member { id: member_id, client: id, heard: now, joined: true, claims, assigned: BTreeSet::new() };
                let instance = client.instance.clone();
                self.rebalance(now);
                self.members.insert(instance, fresh);
            }
        }
    }

    /// Decides who gets what: as it was where that is balanced; what moves is first given up by its owner.
    fn complete(&mut self) {
        self.preparing = None;
        self.generation += 1;
        let members: Vec<String> = self.members.keys().cloned().collect();
        if members.is_empty() {
            return;
        }
        let (share, more) = (self.partitions as usize / members.len(), self.partitions as usize % members.len());
        let mut owners: BTreeMap<u32, String> = BTreeMap::new();
        // Of two that claim one, who joined last is believed: the worst that an assignor can do.
        let mut believed: BTreeMap<u32, (u64, &String)> = BTreeMap::new();
        let mut contested = BTreeSet::new();
        for (name, member) in &self.members {
            for p in member.claims.iter().filter(|p| **p < self.partitions) {
                let latest = believed.entry(*p).or_insert((member.id, name));
                if latest.1 != name {
                    *latest = (*latest).max((member.id, name));
                    contested.insert(latest.1);
                }
            }
        }
        let mut by_claims: Vec<_> = self.members.iter().collect();
        by_claims.sort_by_key(|(name, m)| (!contested.contains(name), std::cmp::Reverse(m.claims.len())));
        for (i, (name, member)) in by_claims.into_iter().enumerate() {
            let quota = share + usize::from(i < more);
            let is_believed = |p: &&u32| believed.get(p).is_some_and(|(_, by)| *by == name);
            for p in member.claims.iter().filter(is_believed).take(quota) {
                owners.insert(*p, name.clone());
            }
        }
        let claimed: BTreeSet<u32> = self.members.values().flat_map(|m| m.claims.iter().copied()).collect();
        let mut load: BTreeMap<String, usize> = members.iter().map(|m| (m.clone(), 0)).collect();
        for owner in owners.values() {
            *load.entry(owner.clone()).or_default() += 1;
        }
        for p in 0..self.partitions {
            if let std::collections::btree_map::Entry::Vacant(free) = owners.entry(p)
                && let Some((name, n)) = load.iter_mut().min_by_key(|(_, n)| **n)
            {
                *n += 1;
                if !claimed.contains(&p) {
                    free.insert(name.clone());
                }
            }
        }
        for (name, member) in &mut self.members {
            member.assigned = owners.iter().filter(|(_, o)| *o == name).map(|(p, _)| *p).collect();
        }
    }

    /// Hands the outcome of a rebalance to a client.
    fn sync(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let (Some((member_id, generation)), None) = (client.membership, self.preparing) else { return };
        let Some(member) = self.members.get(&client.instance).filter(|m| m.id == member_id) else { return };
        if generation == self.generation || !client.reachable {
            return;
        }
        client.membership = Some((member_id, self.generation));
        let lost: BTreeSet<u32> = client.owned.difference(&member.assigned).copied().collect();
        let gained: Vec<u32> = member.assigned.difference(&client.owned).copied().collect();
        if !lost.is_empty() {
            client.changes.push_back(Membership::Revoked(lost.iter().copied().collect()));
            client.giving_up = lost;
        }
        // Where nothing is asked back, the end of a rebalance is told in any case.
        if !gained.is_empty() || client.giving_up.is_empty() {
            client.owned.extend(&gained);
            client.changes.push_back(Membership::Assigned(gained));
        }
    }
}
