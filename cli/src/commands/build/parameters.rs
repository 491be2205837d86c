//! What a build was asked for, under the names that BuildKit's frontend has for it: provenance tells them.

use std::collections::BTreeMap;

use planner::request::{PROXIES, Request};

use super::input::without_password;

/// The parameters of one build. What says how the machine does it, and not what is made, is not among them.
pub(super) fn of(request: &Request) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut add = |key: String, value: String| drop(out.insert(key, value));
    let is_proxy = |it: &str| PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(it));
    for (name, value) in request.build_args.iter().filter(|(name, _)| !is_proxy(name)) {
        add(format!("build-arg:{name}"), value.clone());
    }
    if let Some(epoch) = request.source_date_epoch
        && !request.build_args.contains_key("SOURCE_DATE_EPOCH")
    {
        add("build-arg:SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
    }
    for (name, value) in &request.labels {
        add(format!("label:{name}"), value.clone());
    }
    for (name, value) in &request.named_contexts {
        add(format!("context:{name}"), without_password(value));
    }
    let hosts = request.add_hosts.iter().map(|(host, address)| format!("{host}={address}"));
    let limits = request.ulimits.iter().map(|(name, soft, hard)| format!("{name}={soft}:{hard}"));
    for (key, value) in [
        ("target", request.target.clone().unwrap_or_default()),
        ("force-network-mode", request.network.clone().unwrap_or_default()),
        ("add-hosts", hosts.collect::<Vec<_>>().join(",")),
        ("ulimit", limits.collect::<Vec<_>>().join(",")),
        ("shm-size", request.shm_size.map(|it| it.to_string()).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            add(key.to_owned(), value);
        }
    }
    match request.no_cache {
        true => add("no-cache".to_owned(), String::new()),
        false if request.no_cache_filter.is_empty() => {}
        false => add("no-cache".to_owned(), request.no_cache_filter.join(",")),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_frontend() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let request = Request {
            target: Some("app".to_owned()),
            build_args: BTreeMap::from([
                pair("A", "1"),
                pair("https_proxy", "http://me:secret@host"),
                pair("NO_PROXY", "x"),
            ]),
            labels: vec![pair("l", "2")],
            named_contexts: BTreeMap::from([pair("c", "https://me:secret@host/x.git")]),
            no_cache_filter: vec!["base".to_owned()],
            add_hosts: vec![pair("h", "1.2.3.4")],
            ..Request::default()
        };
        let expected = [
            ("add-hosts", "h=1.2.3.4"),
            ("build-arg:A", "1"),
            ("context:c", "https://host/x.git"),
            ("label:l", "2"),
            ("no-cache", "base"),
            ("target", "app"),
        ];
        let found = of(&request);
        let found: Vec<_> =
            found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }
}
