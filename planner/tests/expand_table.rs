//! The rows of the conformance table `expand.json`.

mod tables;

use std::collections::BTreeMap;

use planner::expand::Lexer;
use serde_json::{Value, json};

#[test]
fn every_row() {
    tables::for_each("expand.json", |row, problems| {
        let input = row["input"].as_str().unwrap();
        let escape = row["escape"].as_str().map_or('\\', |it| it.chars().next().unwrap());
        let env: BTreeMap<String, String> = serde_json::from_value(row["env"].clone()).unwrap();
        let lexer = Lexer::new(escape);
        let mut same = |key: &str, actual: Value| {
            if row[key] != actual {
                problems.push(format!("{key}: wanted {}, got {actual}", row[key]));
            }
        };

        let expanded = lexer.word(input, &env);
        match &expanded {
            Ok(it) => {
                same("word", json!(it.text));
                same("matched", json!(it.matched));
                same("unmatched", json!(it.unmatched));
                same("error", Value::Null);
            }
            Err(error) => same("error", json!(error.to_string())),
        }
        match lexer.words(input, &env) {
            Ok(words) => same("words", json!(words)),
            Err(error) => same("words_error", json!(error.to_string())),
        }
        match (Lexer { keep_unset: true, ..lexer }).word(input, &env) {
            Ok(it) => same("word_keep_unset", json!(it.text)),
            Err(error) => same("word_keep_unset_error", json!(error.to_string())),
        }
        if expanded.is_ok() {
            let raw = Lexer { raw_quotes: true, raw_escapes: true, ..lexer };
            match raw.word(input, &env) {
                Ok(it) => same("word_raw", json!(it.text)),
                Err(error) => same("word_raw_error", json!(error.to_string())),
            }
        }
    });
}
