//! Reads what registries answer: bounded bodies, error texts, `Retry-After`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{
    Response, Url,
    header::{HeaderMap, RETRY_AFTER},
};
use serde_json::Value;

use crate::error::{Error, Result};

/// Longest text of a registry that is shown, in characters.
const SHOWN: usize = 300;

/// Reads the body of `response`, and fails once it is longer than `limit` bytes.
pub(crate) async fn read_body(mut response: Response, limit: u64, what: &str) -> Result<Vec<u8>> {
    let too_large = || Error::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|it| it > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| interrupted(what, error))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads the body of an error and returns what it says in words. Never fails: the status is worth more than its text.
pub(crate) async fn read_message(response: Response, limit: u64) -> String {
    match read_body(response, limit, "error").await {
        Ok(body) => message(&body),
        Err(_) => String::new(),
    }
}

/// Returns the words of an error document.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(document) => words(&document),
        Err(_) => String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned(),
    };
    let text = text.trim();
    if text.starts_with('<') {
        return String::new(); // A web page for people with browsers.
    }
    text.chars().filter(|it| !it.is_control()).take(SHOWN).collect()
}

fn words(document: &Value) -> String {
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if let Some(error) = document.get("errors").and_then(|it| it.get(0)) {
        let (code, message) =
            (text(error, "code").to_lowercase().replace('_', " "), text(error, "message"));
        return match () {
            () if message.is_empty() => code,
            () if code.is_empty()
                || code == "unauthorized"
                || message.to_lowercase().contains(&code) =>
            {
                message
            }
            () => format!("{code}: {message}"),
        };
    }
    ["details", "detail", "error_description", "message", "error"]
        .iter()
        .map(|key| text(document, key))
        .find(|it| !it.is_empty())
        .unwrap_or_default()
}

/// Returns how long the registry asks to wait: seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = UNIX_EPOCH + Duration::from_secs(http_date(text)?);
    Some(until.duration_since(now).unwrap_or_default())
}

/// Returns the seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// # Source
///
/// RFC 9110, 5.6.7, the form that servers must generate.
pub fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut words = date.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|it| *it == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|it| it.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT")
        || !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days of the civil calendar, with March as the first month so that leap days come last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Makes the error for an exchange that broke off.
pub(crate) fn interrupted(request: &str, error: reqwest::Error) -> Error {
    Error::Interrupted { request: request.to_owned(), source: Box::new(error.without_url()) }
}

/// Returns `url` as messages show it: without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Returns host and port of `url`.
pub(crate) fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn messages_are_taken_from_all_forms() {
        let cases = [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                "manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, "denied: no"),
            (r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, "name unknown"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("upstream\u{7} gone\nmore", "upstream gone"),
            ("<html>", ""),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("the text is a header"));
            retry_after(&headers, now)
        };
        assert_eq!(read("2"), Some(Duration::from_secs(2)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:39 GMT"), Some(Duration::from_secs(2)));
        assert_eq!(read("Sun, 06 Nov 1994 08:40:39 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        // What is no time of day must not be added to one.
        for clock in [
            "24:00:00",
            "08:60:00",
            "08:49:61",
            "0:307445734561825860:0",
            "0:0:18446744073709551615",
        ] {
            assert_eq!(read(&format!("Sun, 06 Nov 1994 {clock} GMT")), None, "{clock}");
        }
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Sat, 29 Feb 2020 12:00:00 GMT"), Some(1_582_977_600));
    }

    #[test]
    fn shown_urls_have_no_secrets() {
        let url = Url::parse("https://user:secret@a.example:5000/v2/x?sig=secret#secret")
            .expect("it is a URL");
        assert_eq!(shown(&url), "https://a.example:5000/v2/x");
        assert_eq!(address(&url), "a.example:5000");
    }
}
