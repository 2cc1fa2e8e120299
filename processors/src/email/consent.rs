//! Who may be mailed, and where: contacts as the shop states them, and what suppresses them.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tillflow_schemas::{ConsentStatus, Customer, Timestamp};

/// Versions of a contact that are kept; the oldest go first.
const VERSIONS: usize = 8;
/// Interests of a contact that are kept.
const INTERESTS: usize = 50;

/// What is known of a customer, as of some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the contract's customers")]
pub struct Contact {
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub birthday: Option<String>,
    pub country: Option<String>,
    pub timezone: Option<String>,
    pub consent: Option<ConsentStatus>,
    pub consent_at: Option<Timestamp>,
    pub interests: Vec<String>,
}

impl From<&Customer> for Contact {
    fn from(c: &Customer) -> Self {
        let said = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        Self {
            email: said(&c.email),
            first_name: said(&c.first_name),
            birthday: said(&c.birthday),
            country: said(&c.country),
            timezone: said(&c.timezone),
            consent: c.consent.as_ref().map(|c| c.status),
            consent_at: c.consent.as_ref().and_then(|c| c.at),
            interests: c.interests.iter().take(INTERESTS).cloned().collect(),
        }
    }
}

impl Contact {
    /// The user's zone: theirs where known, else the shop's, else UTC.
    pub fn zone(contact: Option<&Self>, shop: Option<&str>) -> TimeZone {
        let named = |name: &str| TimeZone::get(name).ok();
        contact.and_then(|c| c.timezone.as_deref()).and_then(named).or_else(|| shop.and_then(named)).unwrap_or(TimeZone::UTC)
    }
}

/// The versions of a contact, oldest first; each counts until the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contacts(Vec<(Timestamp, Contact)>);

impl Contacts {
    /// Takes a version. The first one has always counted unless it says since when; a later one counts from `now`.
    pub fn state(&mut self, customer: &Customer, now: Timestamp) {
        let from = customer.valid_from.unwrap_or(if self.0.is_empty() { Timestamp::MIN } else { now });
        let at = self.0.partition_point(|(t, _)| *t < from);
        match self.0.get_mut(at) {
            Some(same) if same.0 == from => same.1 = customer.into(),
            _ => self.0.insert(at, (from, customer.into())),
        }
        if self.0.len() > VERSIONS {
            self.0.remove(0);
        }
    }

    /// The newest version, whenever it begins to count: what was said last of consent.
    pub fn newest(&self) -> Option<&Contact> {
        self.0.last().map(|(_, contact)| contact)
    }

    /// The version that counts at `now`.
    pub fn at(&self, now: Timestamp) -> Option<&Contact> {
        self.0.iter().rev().find(|(from, _)| *from <= now).map(|(_, contact)| contact)
    }
}

/// What has suppressed a user's mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Suppressions {
    /// The last unsubscription. Consent given anew after it lifts it.
    pub unsubscribed: Option<Timestamp>,
    /// The last complaint: never lifted.
    pub complained: Option<Timestamp>,
    /// The address that bounced for good. Another address lifts it.
    pub bounced: Option<String>,
}

/// Where the user may be mailed, or in words why not.
///
/// # Errors
/// No address, no consent, or a suppression.
pub fn may_mail<'a>(contact: Option<&'a Contact>, suppressions: &Suppressions) -> Result<&'a str, &'static str> {
    let Some((contact, address)) = contact.and_then(|c| Some((c, c.email.as_deref()?))) else { return Err("no address") };
    match contact.consent {
        Some(ConsentStatus::Granted) => {}
        Some(ConsentStatus::Pending) => return Err("consent is not confirmed yet"),
        Some(ConsentStatus::Withdrawn) => return Err("consent was withdrawn"),
        None => return Err("no consent"),
    }
    if suppressions.complained.is_some() {
        return Err("complained");
    }
    if suppressions.bounced.as_deref() == Some(address) {
        return Err("the address bounced");
    }
    match suppressions.unsubscribed {
        Some(left) if contact.consent_at.is_none_or(|given| given <= left) => Err("unsubscribed"),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }
    fn granted() -> Contact {
        Contact { email: Some("a@example.com".into()), consent: Some(ConsentStatus::Granted), ..Contact::default() }
    }

    #[test]
    fn only_granted_consent_with_an_address_may_be_mailed() {
        let none = Suppressions::default();
        assert_eq!(may_mail(Some(&granted()), &none), Ok("a@example.com"));
        assert_eq!(may_mail(None, &none), Err("no address"));
        assert_eq!(may_mail(Some(&Contact { email: None, ..granted() }), &none), Err("no address"));
        assert_eq!(may_mail(Some(&Contact { consent: None, ..granted() }), &none), Err("no consent"));
        for status in [ConsentStatus::Pending, ConsentStatus::Withdrawn] {
            assert!(may_mail(Some(&Contact { consent: Some(status), ..granted() }), &none).is_err());
        }
    }

    #[test]
    fn an_unsubscription_ends_with_newer_consent_a_bounce_with_another_address_a_complaint_never() {
        let left = Suppressions { unsubscribed: Some(at(10)), ..Suppressions::default() };
        for given in [None, Some(at(10))] {
            assert_eq!(may_mail(Some(&Contact { consent_at: given, ..granted() }), &left), Err("unsubscribed"));
        }
        assert!(may_mail(Some(&Contact { consent_at: Some(at(11)), ..granted() }), &left).is_ok());

        let bounced = Suppressions { bounced: Some("a@example.com".into()), ..Suppressions::default() };
        assert_eq!(may_mail(Some(&granted()), &bounced), Err("the address bounced"));
        assert!(may_mail(Some(&Contact { email: Some("b@example.com".into()), ..granted() }), &bounced).is_ok());

        let complained = Suppressions { complained: Some(at(10)), ..Suppressions::default() };
        assert_eq!(may_mail(Some(&Contact { consent_at: Some(at(99)), ..granted() }), &complained), Err("complained"));
    }

    #[test]
    fn a_contact_counts_from_when_it_says_and_the_first_one_always() {
        let named = |name: &str, from: Option<i64>| Customer {
            user_id: "u".into(),
            first_name: Some(name.into()),
            valid_from: from.map(at),
            ..Customer::default()
        };
        let mut contacts = Contacts::default();
        contacts.state(&named("first", None), at(100));
        contacts.state(&named("second", None), at(200));
        contacts.state(&named("between", Some(150)), at(300));
        let name = |at_ms| contacts.at(at(at_ms)).unwrap().first_name.clone().unwrap();
        assert_eq!([name(0), name(149), name(150), name(200)], ["first", "first", "between", "second"]);
        for n in 0..20 {
            contacts.state(&named("more", Some(1_000 + n)), at(0));
        }
        assert_eq!(contacts.0.len(), VERSIONS);
    }
}
