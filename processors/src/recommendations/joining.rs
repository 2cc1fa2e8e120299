//! A visitor becomes known: their session moves to the user, once, and to one user only.
//!
//! The two ids lie in different partitions, so it takes a round trip: the event that carries both tells the owner of
//! the anonymous id, which gives its session away to the first user that asks.

use super::{session::Seen, shelf::Shopper};
use serde_json::{Map, Value, json};
use tillflow_schemas::{CustomerSignal, Timestamp, UserId};

/// To the owner of an anonymous id: an event said who it is.
pub const JOIN: &str = "recommendations.join";
/// To the owner of the user: here is the session.
pub const SESSION: &str = "recommendations.session";
/// Ids remembered that a user went by; the oldest go first. One asked again is asked in vain.
const REMEMBERED: usize = 16;

/// The signal that asks for an anonymous id's session, unless it was asked for before.
pub fn ask(shopper: &mut Shopper, user: &UserId, anonymous: &UserId, at: Timestamp) -> Option<CustomerSignal> {
    if user == anonymous || shopper.joined.contains(anonymous) {
        return None;
    }
    shopper.joined.push(anonymous.clone());
    let excess = shopper.joined.len().saturating_sub(REMEMBERED);
    shopper.joined.drain(..excess);
    Some(signal(anonymous, JOIN, user, at, json!(user)))
}

/// Gives the session of an anonymous id away, to the first that asks.
pub fn give(visitor: &mut Shopper, signal_to: &CustomerSignal) -> Option<CustomerSignal> {
    let user = UserId::from(signal_to.data.get("value")?.as_str()?);
    if visitor.joined_to.is_some() {
        return None;
    }
    visitor.joined_to = Some(user.clone());
    let items = visitor.session.move_out();
    if items.is_empty() {
        return None;
    }
    Some(signal(&user, SESSION, &signal_to.user_id, signal_to.at, json!(items)))
}

/// The products of a session given away.
pub fn given(signal: &CustomerSignal) -> Option<Vec<Seen>> {
    serde_json::from_value(signal.data.get("value")?.clone()).ok()
}

fn signal(to: &UserId, kind: &str, about: &UserId, at: Timestamp, value: Value) -> CustomerSignal {
    let data = Map::from_iter([("value".to_owned(), value)]);
    CustomerSignal { user_id: to.clone(), signal_id: format!("{kind}:{about}"), at, kind: kind.to_owned(), data }
}
