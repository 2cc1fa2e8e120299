//! The id that a cluster gives a topic when it is made: a topic that was deleted and made anew has another.
//!
//! rdkafka doesn't wrap librdkafka's `DescribeTopics`, so it is called here.

#![allow(unsafe_code, reason = "a call of librdkafka that rdkafka has no wrapper for")]

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics,
        rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
        rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_base64str, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_t,
        rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::{Client, ClientContext},
    error::KafkaError,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use std::{
    ffi::{CStr, CString, c_char},
    ptr::{NonNull, null, null_mut},
    time::Duration,
};

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
/// What brokers before 2.8 answer: they give no ids.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The id of a topic; `None` where the cluster gives none.
///
/// # Errors
/// When the cluster does not answer in time, or refuses.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<Option<String>, KafkaError> {
    let name = CString::new(topic)?;
    let event = describe(client, &name, timeout).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))?;
    let id = event.topic_id().map_err(|code| KafkaError::MetadataFetch(code.into()))?;
    Ok(id.filter(|id| id != NONE))
}

/// Asks, and waits for the answer.
fn describe<C: ClientContext>(client: &Client<C>, name: &CStr, timeout: Duration) -> Option<Answer> {
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the client outlives the call, which copies names and options; what is made here is destroyed here, and the
    // queue is polled before it goes. librdkafka returns null only for arguments that are not given here, but for the
    // poll, whose null is looked at.
    unsafe {
        let client = client.native_ptr();
        let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = rd_kafka_AdminOptions_new(client, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let queue = rd_kafka_queue_new(client);
        rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = rd_kafka_queue_poll(queue, milliseconds);
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_TopicCollection_destroy(topics);
        NonNull::new(event).map(Answer)
    }
}

/// An event that holds the answer about one topic.
struct Answer(NonNull<rd_kafka_event_t>);

impl Answer {
    fn topic_id(&self) -> Result<Option<String>, RDKafkaRespErr> {
        let event = self.0.as_ptr();
        // SAFETY: the event lives as long as `self`, and all that is read here is part of it and copied. Pointers that may
        // be null are looked at, and there is a description where the count says so.
        unsafe {
            let failed = rd_kafka_event_error(event);
            if failed != NO_ERROR {
                return Err(failed);
            }
            let result = rd_kafka_event_DescribeTopics_result(event);
            let mut count = 0;
            let topics = if result.is_null() { null_mut() } else { rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
            if topics.is_null() || count == 0 {
                return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG);
            }
            let topic = *topics;
            let error = rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && rd_kafka_error_code(error) != NO_ERROR {
                return Err(rd_kafka_error_code(error));
            }
            let id = rd_kafka_TopicDescription_topic_id(topic);
            let id = if id.is_null() { null() } else { rd_kafka_Uuid_base64str(id) };
            Ok((!id.is_null()).then(|| CStr::from_ptr(id).to_string_lossy().into_owned()))
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it came from a poll and is destroyed once.
        unsafe { rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
