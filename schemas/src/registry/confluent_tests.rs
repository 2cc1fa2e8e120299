//! The client against a server that answers as Confluent's does, over real sockets.

use super::*;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc,
};

/// Answers each request with the next of `answers`, and passes on what was asked: request line, authorization, body.
fn server(answers: Vec<(u16, &'static str)>) -> (String, mpsc::Receiver<(String, String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut head, mut length, mut authorization) = (String::new(), 0, String::new());
            reader.read_line(&mut head).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_owned();
                let lower = line.to_ascii_lowercase();
                match lower.split_once(':') {
                    Some(("content-length", n)) => length = n.trim().parse().unwrap(),
                    Some(("authorization", _)) => authorization = line["authorization:".len()..].trim().to_owned(),
                    _ => {}
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut sent = vec![0; length];
            reader.read_exact(&mut sent).unwrap();
            asked.send((head.trim().to_owned(), authorization, String::from_utf8(sent).unwrap())).unwrap();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, requests)
}

fn client(address: &str, unknown_for: Duration) -> ConfluentRegistry {
    ConfluentRegistry::new(&format!("http://{address}/"), Duration::from_secs(10), unknown_for).unwrap()
}

const FOR_EVER: Duration = Duration::from_secs(3600);
const UNKNOWN: (u16, &str) = (404, r#"{"error_code": 40403, "message": "Schema not found"}"#);

#[test]
fn a_schema_is_asked_for_once_with_the_credentials_of_the_url() {
    let (address, requests) = server(vec![(200, r#"{"schema": "\"string\""}"#)]);
    let registry = ConfluentRegistry::new(&format!("http://me:p%40ss@{address}"), FOR_EVER, FOR_EVER).unwrap();
    for _ in 0..2 {
        let schema = registry.schema(7).unwrap().unwrap();
        assert_eq!((schema.kind.as_str(), schema.text.as_str()), ("AVRO", "\"string\""));
    }
    let (head, authorization, _) = requests.recv().unwrap();
    assert_eq!(head, "GET /schemas/ids/7 HTTP/1.1");
    assert_eq!(authorization, "Basic bWU6cEBzcw==");
    assert!(!format!("{registry:?}").contains("ss@"));
}

#[test]
fn an_unknown_id_is_remembered_for_as_long_as_the_caller_says() {
    let (address, _requests) = server(vec![UNKNOWN]);
    let registry = client(&address, FOR_EVER);
    assert_eq!(registry.schema(7), Ok(None));
    assert_eq!(registry.schema(7), Ok(None), "no second request: nobody would answer it");

    let (address, _requests) = server(vec![UNKNOWN, (200, r#"{"schema": "\"int\""}"#)]);
    let registry = client(&address, Duration::ZERO);
    assert_eq!(registry.schema(7), Ok(None));
    assert!(registry.schema(7).unwrap().is_some());
}

#[test]
fn absent_is_told_from_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert!(matches!(client(&nobody, FOR_EVER).schema(1), Err(RegistryError::Unreachable { .. })));

    let (address, _requests) =
        server(vec![(503, "busy"), (404, "<html>"), (200, "<html>"), (401, r#"{"error_code": 40101, "message": "Unauthorized"}"#)]);
    let registry = client(&address, FOR_EVER);
    for words in ["503", "no registry there", "what a registry would not"] {
        let error = registry.schema(1).unwrap_err();
        assert!(matches!(&error, RegistryError::Unreachable { reason, .. } if reason.contains(words)), "{error}");
    }
    let error = registry.schema(1).unwrap_err();
    assert_eq!(error.to_string(), format!("schema registry http://{address} refuses: 401: Unauthorized"));
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let registry = ConfluentRegistry::new(&url, Duration::from_millis(50), FOR_EVER).unwrap();
    assert!(matches!(registry.schema(1), Err(RegistryError::Unreachable { .. })));
}

#[test]
fn schemas_that_a_schema_names_come_with_it() {
    let (address, requests) = server(vec![
        (200, r#"{"schema": "{}", "references": [{"name": "x.Money", "subject": "a/b", "version": 2}]}"#),
        (200, r#"{"subject": "a/b", "version": 2, "id": 3, "schema": "\"money\""}"#),
    ]);
    let schema = client(&address, FOR_EVER).schema(7).unwrap().unwrap();
    assert_eq!(schema.references, ["\"money\""]);
    let asked: Vec<_> = requests.iter().map(|(head, ..)| head).collect();
    assert_eq!(asked[1], "GET /subjects/a%2Fb/versions/2 HTTP/1.1");
}

#[test]
fn registering_checking_and_the_latest_version() {
    let (address, requests) = server(vec![
        (200, r#"{"id": 5}"#),
        (403, r#"{"error_code": 40301, "message": "read only"}"#),
        (200, r#"{"subject": "s", "id": 6, "version": 1, "schema": "\"int\""}"#),
        (409, r#"{"error_code": 409, "message": "incompatible"}"#),
        UNKNOWN,
        (200, r#"{"is_compatible": false, "messages": ["a field is missing"]}"#),
        (404, r#"{"error_code": 40401, "message": "Subject not found"}"#),
        (200, r#"{"subject": "s", "id": 6, "version": 4, "schema": "\"int\""}"#),
    ]);
    let registry = client(&address, FOR_EVER);
    assert_eq!(registry.register("s-value", "\"int\""), Ok(5));
    assert_eq!(registry.register("s-value", "\"int\""), Ok(6), "somebody else registered it");
    let error = registry.register("s-value", "\"int\"").unwrap_err();
    assert!(matches!(&error, RegistryError::Refused { reason, .. } if reason.contains("incompatible")), "{error}");
    assert_eq!(registry.check("s-value", "\"int\""), Ok(vec!["a field is missing".to_owned()]));
    assert_eq!(registry.check("s-value", "\"int\""), Ok(vec![]), "nothing is registered yet");
    assert_eq!(registry.latest("s-value").unwrap().unwrap().version, 4);
    let asked: Vec<_> = requests.iter().collect();
    assert_eq!(asked[0].0, "POST /subjects/s-value/versions HTTP/1.1");
    assert_eq!(asked[0].2, r#"{"schema":"\"int\""}"#);
    assert_eq!(asked[2].0, "POST /subjects/s-value HTTP/1.1");
}

#[test]
fn what_is_no_url_is_said() {
    for url in ["localhost:8081", "ftp://x", "http://", "http://user:secret@"] {
        let error = ConfluentRegistry::new(url, FOR_EVER, FOR_EVER).unwrap_err().to_string();
        assert!(error.contains("registry.url") && !error.contains("secret"), "{error}");
    }
}
