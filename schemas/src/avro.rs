//! Avro data and the typed events.
//!
//! An Avro datum becomes the JSON text that the same event would have been sent as, and is then read like any
//! JSON ([`Reader`]); what is written goes the other way ([`Schema::encode`]). So both formats have one decoder,
//! one set of checks and one wording of errors.
//!
//! How the two correspond:
//!
//! - `timestamp-millis` is epoch milliseconds; writers may use `timestamp-micros` or `-nanos`.
//! - `decimal` is a decimal string, read at the *writer's* scale, so that no digit is lost whatever a shop's
//!   schema states. Ours have precision 28: inputs scale 15 (10^12 with fifteen places is all that 28 digits
//!   hold), outputs scale 4 (no currency has more). An amount with more places is refused, never rounded.
//! - An absent optional field is null.
//! - Open-ended objects are strings that hold JSON, marked `"tillflow.json"` in the schema: `"value"` for the
//!   field's value, `"members"` where JSON has the members beside the record's own fields. Features are a map of
//!   scalars, since shops write them.
//! - Names that form an open set (`event_type`, `status`, `kind`, …) are strings: a new one breaks no consumer.
//!
//! Schemas are parsed by `apache-avro`. Data are not read with it: its reader takes a truncated string or union
//! for null, and reserves memory for as many elements as an array claims to have.
//!
//! ```
//! use tillflow_schemas::{Event, avro};
//! let schema = avro::built_in("inventory").unwrap();
//! let json = br#"{"product_id": "p1", "stock_level": 15, "last_updated": "2026-03-01T10:00:00.000Z"}"#;
//! let datum = schema.encode(json).unwrap();
//! let read = avro::Reader::new(&schema, Some(&schema)).to_json(&datum).unwrap();
//! assert_eq!(Event::decode("inventory", None, Some(&read)), Event::decode("inventory", None, Some(json)));
//! ```

mod built_in;
mod compatible;
mod input;
mod read;
mod run;
mod schema;
mod write;

pub use built_in::{built_in, built_in_text, built_ins};
pub use compatible::Incompatible;
pub use read::Reader;
pub use schema::{Schema, SchemaError};
