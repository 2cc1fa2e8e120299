//! The form in which a shop states conditions, in YAML or JSON, checked with errors that name the path.
//!
//! ```yaml
//! all:
//!   - { field: orders, op: ">=", value: 2, within: 30d }
//!   - any:
//!       - { field: country, op: in, value: [DE, AT] }
//!       - { field: interests, op: contains, value: tea }
//!   - not: { field: last_order, within: 7d }
//! ```

use super::{Span, consent::Contact, facts::Facts, segments::Purchase, segments::Views, segments::views::KEPT};
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use std::time::Duration;
use tillflow_schemas::{ConsentStatus, Money, Timestamp};

/// How deep conditions may be nested.
const DEEPEST: usize = 16;
/// Conditions in one definition.
const MOST: usize = 200;

/// A condition on a user.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Every one holds.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// One field.
    Field(Test),
}

/// A test of one field.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// A number: counted within a window, where it says one.
    Number(NumberField, Compare, Decimal, Duration),
    /// A time lies within the window before now; `None` asks whether it is known at all.
    Time(TimeField, Option<Duration>),
    /// A text is one of these.
    Text(TextField, Vec<String>),
    /// A list contains this.
    List(ListField, String),
    /// A flag is so.
    Flag(FlagField, bool),
}

macro_rules! fields {
    ($($name:ident { $($variant:ident = $text:literal),+ })+) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as the fields of a definition")]
        pub enum $name { $($variant),+ }
        impl $name {
            const NAMES: &[(&str, Self)] = &[$(($text, Self::$variant)),+];
            fn named(text: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, field)| *field)
            }
        }
    )+};
}
fields! {
    NumberField { Orders = "orders", NetSpend = "net_spend", Views = "views" }
    TimeField { FirstEvent = "first_event", LastEvent = "last_event", LastOrder = "last_order", LastClick = "last_click" }
    TextField { Country = "country", Timezone = "timezone" }
    ListField { Interests = "interests", Categories = "categories", Viewed = "viewed", Segments = "segments" }
    FlagField { HasEmail = "has_email", Consented = "consented", Cart = "cart" }
    Compare { Equal = "=", NotEqual = "!=", Below = "<", AtMost = "<=", Above = ">", AtLeast = ">=" }
}

/// What conditions are asked of.
pub struct Subject<'a> {
    /// What is remembered of the user.
    pub facts: &'a Facts,
    /// What the shop states of them.
    pub contact: Option<&'a Contact>,
    /// Orders and refunds within `spend_window`.
    pub purchases: &'a [(Timestamp, Purchase)],
    /// Products viewed within 14 days.
    pub views: &'a Views,
    /// Segments the user is in.
    pub segments: &'a [String],
}

/// Whether a condition holds, and when time alone may change that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds now.
    pub holds: bool,
    /// When to ask again.
    pub changes: Option<Timestamp>,
}

/// What is wrong with a definition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Problem {
    /// Such as `vip.all[1].op`.
    pub path: String,
    /// In words.
    pub reason: String,
}

/// Fails with what is wrong at `path`.
pub(crate) fn wrong<T>(path: impl Into<String>, reason: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { path: path.into(), reason: reason.into() })
}

impl Condition {
    /// Reads a condition. `spend_window` is how long orders are kept.
    ///
    /// # Errors
    /// Names the path of what is wrong.
    pub fn parse(value: &Value, path: &str, spend_window: Span) -> Result<Self, Problem> {
        Reader { spend_window, left: MOST }.read(value, path, DEEPEST)
    }

    /// Whether it holds at `now`.
    pub fn verdict(&self, subject: &Subject<'_>, now: Timestamp) -> Verdict {
        match self {
            Self::All(parts) => together(parts, subject, now, |verdicts| verdicts.iter().all(|v| v.holds)),
            Self::Any(parts) => together(parts, subject, now, |verdicts| verdicts.iter().any(|v| v.holds)),
            Self::Not(part) => {
                let verdict = part.verdict(subject, now);
                Verdict { holds: !verdict.holds, ..verdict }
            }
            Self::Field(test) => test.verdict(subject, now),
        }
    }

    /// Whether any part of it looks at the field of that name.
    pub fn asks_views(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::asks_views),
            Self::Not(part) => part.asks_views(),
            Self::Field(test) => matches!(test, Test::Number(NumberField::Views, ..) | Test::List(ListField::Viewed, _)),
        }
    }

    /// Whether any part of it counts purchases.
    pub fn asks_purchases(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::asks_purchases),
            Self::Not(part) => part.asks_purchases(),
            Self::Field(test) => matches!(test, Test::Number(NumberField::Orders | NumberField::NetSpend, ..)),
        }
    }
}

fn together(parts: &[Condition], subject: &Subject<'_>, now: Timestamp, holds: fn(&[Verdict]) -> bool) -> Verdict {
    let verdicts: Vec<_> = parts.iter().map(|p| p.verdict(subject, now)).collect();
    Verdict { holds: holds(&verdicts), changes: verdicts.iter().filter_map(|v| v.changes).min() }
}

impl Test {
    fn verdict(&self, subject: &Subject<'_>, now: Timestamp) -> Verdict {
        let steady = |holds| Verdict { holds, changes: None };
        match self {
            Self::Number(field, compare, value, window) => {
                let (found, oldest) = field.count(subject, now, *window);
                Verdict { holds: compare.holds(found, *value), changes: oldest.map(|t| t + *window) }
            }
            Self::Time(field, window) => {
                let Some(time) = field.of(subject.facts) else { return steady(false) };
                let Some(window) = *window else { return steady(true) };
                let end = time + window;
                Verdict { holds: now < end, changes: (now < end).then_some(end) }
            }
            Self::Text(field, any) => {
                let text = subject.contact.and_then(|c| match field {
                    TextField::Country => c.country.as_ref(),
                    TextField::Timezone => c.timezone.as_ref(),
                });
                steady(text.is_some_and(|t| any.contains(t)))
            }
            Self::List(ListField::Viewed, value) => {
                let last = subject.views.iter().filter(|v| v.product.as_str() == value).flat_map(|v| &v.times).max();
                let end = last.map(|t| *t + KEPT).filter(|end| now < *end);
                Verdict { holds: end.is_some(), changes: end }
            }
            Self::List(field, value) => steady(match field {
                ListField::Interests => subject.contact.is_some_and(|c| c.interests.contains(value)),
                ListField::Categories => subject.facts.bought.contains_key(value),
                ListField::Segments => subject.segments.contains(value),
                ListField::Viewed => false,
            }),
            Self::Flag(field, value) => {
                let contact = subject.contact;
                let flag = match field {
                    FlagField::HasEmail => contact.is_some_and(|c| c.email.is_some()),
                    FlagField::Consented => contact.is_some_and(|c| c.consent == Some(ConsentStatus::Granted)),
                    FlagField::Cart => subject.facts.cart_since.is_some(),
                };
                steady(flag == *value)
            }
        }
    }
}

impl NumberField {
    /// The number within the window, and the oldest time that is part of it.
    fn count(self, subject: &Subject<'_>, now: Timestamp, window: Duration) -> (Decimal, Option<Timestamp>) {
        let inside = |t: Timestamp| t > now - window;
        let purchases = || subject.purchases.iter().filter(|(t, _)| inside(*t));
        let count = |n: usize| Decimal::from(n);
        match self {
            Self::Orders => {
                let mut orders = purchases().filter(|(_, p)| p.is_order);
                let oldest = orders.next().map(|(t, _)| *t);
                (count(oldest.map_or(0, |_| 1 + orders.count())), oldest)
            }
            Self::NetSpend => (purchases().map(|(_, p)| p.net).sum::<Money>().decimal(), purchases().map(|(t, _)| *t).min()),
            Self::Views => {
                let times = || subject.views.iter().flat_map(|v| v.times.iter().copied()).filter(|t| inside(*t));
                (count(times().count()), times().min())
            }
        }
    }
}

impl TimeField {
    fn of(self, facts: &Facts) -> Option<Timestamp> {
        match self {
            Self::FirstEvent => facts.first_event,
            Self::LastEvent => facts.last_event,
            Self::LastOrder => facts.last_order,
            Self::LastClick => facts.last_click,
        }
    }
}

impl Compare {
    fn holds(self, found: Decimal, value: Decimal) -> bool {
        match self {
            Self::Equal => found == value,
            Self::NotEqual => found != value,
            Self::Below => found < value,
            Self::AtMost => found <= value,
            Self::Above => found > value,
            Self::AtLeast => found >= value,
        }
    }
}

struct Reader {
    spend_window: Span,
    /// Conditions that may still come.
    left: usize,
}

impl Reader {
    fn read(&mut self, value: &Value, path: &str, depth: usize) -> Result<Condition, Problem> {
        if depth == 0 {
            return wrong(path, format!("is nested deeper than {DEEPEST}"));
        }
        self.left = self.left.checked_sub(1).map_or_else(|| wrong(path, format!("more than {MOST} conditions")), Ok)?;
        let Some(object) = value.as_object() else {
            return wrong(path, format!("{} is not a condition: all, any, not, or a field", shown(value)));
        };
        let forms: Vec<_> = ["all", "any", "not", "field"].into_iter().filter(|f| object.contains_key(*f)).collect();
        let [form] = forms.as_slice() else {
            return wrong(path, "a condition has exactly one of all, any, not and field");
        };
        if *form == "field" {
            return self.test(object, path).map(Condition::Field);
        }
        let inner = &object.get(*form).cloned().unwrap_or_default();
        if let Some(other) = object.keys().find(|k| k != form) {
            return wrong(format!("{path}.{other}"), format!("does not belong beside {form}"));
        }
        let path = format!("{path}.{form}");
        if *form == "not" {
            return Ok(Condition::Not(Box::new(self.read(inner, &path, depth - 1)?)));
        }
        let Some(parts) = inner.as_array().filter(|a| !a.is_empty()) else {
            return wrong(path, "is not a list of at least one condition");
        };
        let parts = parts.iter().enumerate().map(|(i, p)| self.read(p, &format!("{path}[{i}]"), depth - 1)).collect::<Result<_, _>>()?;
        Ok(if *form == "all" { Condition::All(parts) } else { Condition::Any(parts) })
    }

    fn test(&self, object: &Map<String, Value>, path: &str) -> Result<Test, Problem> {
        if let Some(other) = object.keys().find(|k| !["field", "op", "value", "within"].contains(&k.as_str())) {
            return wrong(format!("{path}.{other}"), "is not one of field, op, value, within");
        }
        let name = object.get("field").and_then(Value::as_str).unwrap_or_default();
        let at = |part: &str| format!("{path}.{part}");
        let op = match object.get("op") {
            None => None,
            Some(op) => Some(op.as_str().map_or_else(|| wrong(at("op"), format!("{} is not text", shown(op))), Ok)?),
        };
        let value = object.get("value");
        let within = match object.get("within") {
            None => None,
            Some(Value::String(text)) => Some(Span::parse(text).or_else(|reason| wrong(at("within"), reason))?.get()),
            Some(other) => return wrong(at("within"), format!("{} is not a length of time such as 30d", shown(other))),
        };
        let only = |ops: &[&str]| match op {
            Some(op) if ops.contains(&op) => Ok(()),
            _ => wrong(at("op"), format!("{} takes {}, not {}", name, ops.join(" or "), op.unwrap_or("nothing"))),
        };
        let text = || match value.and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => wrong(at("value"), format!("{name} is compared with text")),
        };
        let test = if let Some(field) = NumberField::named(name) {
            let Some(compare) = op.and_then(Compare::named) else {
                return wrong(at("op"), format!("{} is not one of =, !=, <, <=, >, >=", op.unwrap_or("nothing")));
            };
            let kept = if field == NumberField::Views { KEPT } else { self.spend_window.get() };
            let window = within.unwrap_or(kept);
            if window > kept {
                return wrong(at("within"), format!("is longer than the {} days for which {name} are kept", kept.as_secs() / 86_400));
            }
            return Ok(Test::Number(field, compare, number(value, &at("value"))?, window));
        } else if let Some(field) = TimeField::named(name) {
            if within.is_none() {
                only(&["exists"])?;
            } else if op.is_some_and(|o| o != "within") {
                only(&["within"])?;
            }
            if value.is_some() {
                return wrong(at("value"), format!("{name} takes within, or op exists, and no value"));
            }
            return Ok(Test::Time(field, within));
        } else if let Some(field) = TextField::named(name) {
            only(&["=", "in"])?;
            if op == Some("in") {
                let texts = value.and_then(Value::as_array).and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
                Test::Text(field, texts.map_or_else(|| wrong(at("value"), "in takes a list of texts"), Ok)?)
            } else {
                Test::Text(field, vec![text()?])
            }
        } else if let Some(field) = ListField::named(name) {
            only(&["contains"])?;
            Test::List(field, text()?)
        } else if let Some(field) = FlagField::named(name) {
            only(&["="])?;
            match value.and_then(Value::as_bool) {
                Some(flag) => Test::Flag(field, flag),
                None => return wrong(at("value"), format!("{name} is true or false")),
            }
        } else {
            return wrong(at("field"), unknown_field(name));
        };
        if within.is_some() {
            return wrong(at("within"), format!("{name} is not counted over time"));
        }
        Ok(test)
    }
}

fn unknown_field(name: &str) -> String {
    let names: Vec<&str> = NumberField::NAMES
        .iter()
        .map(|f| f.0)
        .chain(TimeField::NAMES.iter().map(|f| f.0))
        .chain(TextField::NAMES.iter().map(|f| f.0))
        .chain(ListField::NAMES.iter().map(|f| f.0))
        .chain(FlagField::NAMES.iter().map(|f| f.0))
        .collect();
    format!("'{}' is not one of {}", tillflow_schemas::shorten(name), names.join(", "))
}

fn number(value: Option<&Value>, path: &str) -> Result<Decimal, Problem> {
    let text = match value {
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::String(s)) => s.clone(),
        other => return wrong(path, format!("{} is not a number", other.map_or("nothing".into(), shown))),
    };
    Money::parse(&text).map(Money::decimal).or_else(|_| wrong(path, format!("'{}' is not a number", tillflow_schemas::shorten(&text))))
}

/// A value as an error shows it.
pub(crate) fn shown(value: &Value) -> String {
    tillflow_schemas::shorten(&value.to_string())
}

#[cfg(test)]
#[path = "definitions_tests.rs"]
mod tests;
