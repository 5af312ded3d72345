//! Texts in files of records, as data sets are published: lines of JSON, JSON, CSV.
#![cfg_attr(not(feature = "text"), allow(dead_code, reason = "no text is read"))]

use std::path::Path;

use serde_json::Value;

use super::DataError;

/// What a file ends in that holds text, alone or as a field of records.
pub(super) const TEXTS: &[&str] = &[".txt", ".text", ".md", ".jsonl", ".ndjson", ".json", ".csv"];

/// The field that holds the text of a record, the first of these that there is.
const FIELDS: &[&str] = &["text", "content", "sentence", "prompt"];

/// The text that is tokenized: the file itself, or the texts of its records one after another.
pub(super) fn text(path: &Path, content: String) -> Result<String, DataError> {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("").to_ascii_lowercase();
    let texts = match &*extension {
        "jsonl" | "ndjson" => lines(path, &content)?,
        "json" => json(path, &content)?,
        "csv" => column(path, &content)?,
        _ => return Ok(content),
    };
    Ok(texts.join("\n"))
}

fn lines(path: &Path, content: &str) -> Result<Vec<String>, DataError> {
    let filled = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = filled.map(|(at, line)| {
        let value = serde_json::from_str(line).map_err(|error| {
            DataError::format(path, format!("is no JSON in line {}: {error}", at + 1))
        })?;
        record(path, &value, &format!("line {}", at + 1))
    });
    read.collect()
}

/// A list of records, one record, or one for each key as in `{"data": [...]}`.
fn json(path: &Path, content: &str) -> Result<Vec<String>, DataError> {
    let value: Value = serde_json::from_str(content).map_err(|error| {
        DataError::format(path, format!("is no JSON ({error}); lines of JSON end in .jsonl"))
    })?;
    let list = match &value {
        Value::Array(list) => Some(list),
        Value::Object(fields) => fields.values().find_map(Value::as_array),
        _ => None,
    };
    match list {
        Some(list) if text_of(&value).is_none() => {
            let numbered = list.iter().enumerate();
            numbered.map(|(at, it)| record(path, it, &format!("record {at}"))).collect()
        }
        _ => Ok(vec![record(path, &value, "record 0")?]),
    }
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(fields) => FIELDS.iter().find_map(|it| fields.get(*it)?.as_str()),
        _ => None,
    }
}

fn record(path: &Path, value: &Value, place: &str) -> Result<String, DataError> {
    let missing = || {
        let fact = format!("has no text in {place}: {}", wanted("field"));
        DataError::format(path, fact)
    };
    text_of(value).map(str::to_owned).ok_or_else(missing)
}

fn wanted(what: &str) -> String {
    format!("a {what} `{}` is read", FIELDS.join("` or `"))
}

/// The column of texts of a table whose first row has names.
fn column(path: &Path, content: &str) -> Result<Vec<String>, DataError> {
    let mut rows = cells(content).into_iter();
    let names = rows.next().unwrap_or_default();
    let position = |field: &&str| names.iter().position(|it| it.trim().eq_ignore_ascii_case(field));
    let Some(at) = FIELDS.iter().find_map(position) else {
        let fact = format!("has the columns {}: {}", names.join(", "), wanted("column"));
        return Err(DataError::format(path, fact));
    };
    Ok(rows.filter_map(|mut row| (row.len() > at).then(|| row.swap_remove(at))).collect())
}

/// Rows of cells; a quoted cell may hold commas, line breaks and doubled quotes.
fn cells(content: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut letters = content.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(letter),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_records_follow_each_other() {
        let read = |name: &str, content: &str| text(Path::new(name), content.to_owned());
        let expected = "a, \"b\"\nc";
        let lines = "{\"id\": 1, \"text\": \"a, \\\"b\\\"\"}\n\n{\"text\": \"c\"}\n";
        assert_eq!(read("x.jsonl", lines).unwrap(), expected);
        let list = r#"{"data": [{"content": "a, \"b\""}, "c"]}"#;
        assert_eq!(read("x.json", list).unwrap(), expected);
        assert_eq!(read("x.csv", "id,Text\r\n1,\"a, \"\"b\"\"\"\r\n2,c").unwrap(), expected);
        assert_eq!(read("x.txt", "a,b").unwrap(), "a,b");
        let error = read("x.csv", "id,label\n1,2\n").unwrap_err().to_string();
        assert!(error.contains("has the columns id, label: a column `text`"), "{error}");
        let error = read("x.jsonl", "{\"text\": \"a\"}\n{\"label\": 1}").unwrap_err().to_string();
        assert!(error.contains("has no text in line 2"), "{error}");
        assert!(read("x.jsonl", "not json").is_err() && read("x.json", "{}{}").is_err());
    }
}
