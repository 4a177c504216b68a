//! `--resources` and `--attributes`: Mesos' text form, JSON, or a file with one
//! of them.

use mezz_proto::{
    attributes,
    error::chain,
    resources::{Amount, Range, Ranges, Resource, Resources, Scalar},
    v1,
};

/// Resources from an option's text.
pub fn resources(text: &str) -> Result<Resources, String> {
    let resources = Resources::parse(&read(text)?).map_err(|error| chain(&error))?;
    if resources.is_empty() {
        return Err("it names nothing; write resources like `cpus:4;mem:8192`".to_owned());
    }
    Ok(resources)
}

/// Attributes from an option's text.
pub fn attributes(text: &str) -> Result<Vec<v1::Attribute>, String> {
    attributes::parse(&read(text)?).map_err(|error| chain(&error))
}

/// The text itself, or what `file:///path` holds.
fn read(text: &str) -> Result<String, String> {
    match text.strip_prefix("file://") {
        None => Ok(text.to_owned()),
        Some(path) => std::fs::read_to_string(path)
            .map(|content| content.trim().to_owned())
            .map_err(|error| format!("`{text}` cannot be read: {error}")),
    }
}

/// What the option names, and of what the machine has those kinds that it does
/// not name (rule 51): naming `gpus` does not take the cpus away.
pub fn with_detected(named: Resources, detected: &Resources) -> Resources {
    let missing = detected.filter(|r| named.named(r.identity.name()).next().is_none());
    named + &missing
}

/// The `index`th of `parts` equal parts: numbers divided, ranges cut, sets left
/// to the first. With whole cpus at least one each, for tasks ask for one.
pub fn part(whole: &Resources, index: u64, parts: u64) -> Resources {
    whole
        .iter()
        .filter_map(|r| {
            let amount = match &r.amount {
                Amount::Scalar(s) => {
                    let share = Scalar::from_millis(s.millis() / parts);
                    let one = Scalar::from_units(1);
                    let is_cpus = r.identity.name() == "cpus" && *s >= one;
                    Amount::Scalar(if is_cpus { share.max(one) } else { share })
                }
                Amount::Ranges(ranges) => Amount::Ranges(cut(ranges, index, parts)),
                Amount::Set(set) if index == 0 => Amount::Set(set.clone()),
                Amount::Set(_) => return None,
            };
            Some(Resource { identity: r.identity.clone(), amount })
        })
        .collect()
}

fn cut(ranges: &Ranges, index: u64, parts: u64) -> Ranges {
    let count = u128::from(ranges.count());
    let border = |i: u64| count * u128::from(i) / u128::from(parts);
    let (from, to) = (border(index), border(index + 1));
    let mut before = 0;
    let mut out = Vec::new();
    for range in ranges.iter() {
        let after = before + u128::from(range.end - range.begin) + 1;
        let (begin, end) = (from.max(before), to.min(after));
        if begin < end {
            // Both are within the range, whose numbers are 64 bits wide.
            let offset = |position: u128| range.begin + (position - before) as u64;
            out.extend(Range::new(offset(begin), offset(end - 1)));
        }
        before = after;
    }
    Ranges::new(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(text: &str) -> Resources {
        resources(text).unwrap()
    }

    #[test]
    fn text_json_and_files() {
        let expected = parse("cpus:4;mem:8192;ports:[31000-32000];zones:{a,b}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "cpus:4; mem:8192; ports:[31000-32000]; zones:{{a,b}}").unwrap();
        assert_eq!(parse(&format!("file://{}", file.path().display())), expected);
        let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":4}}]"#;
        assert_eq!(parse(json), parse("cpus:4"));
        assert_eq!(attributes("rack:r1;ssd:true").unwrap().len(), 2);
    }

    #[test]
    fn bad_texts_are_named() {
        assert!(resources("cpus:4;mem").unwrap_err().contains("`mem`"));
        assert!(resources("").unwrap_err().contains("names nothing"));
        assert!(resources("file:///nonexistent/r").unwrap_err().contains("/nonexistent/r"));
        assert!(resources("[{]").unwrap_err().contains("JSON"));
        assert!(attributes("rack").unwrap_err().contains("`rack`"));
    }

    #[test]
    fn what_is_not_named_is_detected() {
        let detected = parse("cpus:4;mem:8192;disk:100");
        assert_eq!(
            with_detected(parse("cpus:2;gpus:1"), &detected),
            parse("cpus:2;gpus:1;mem:8192;disk:100")
        );
    }

    #[test]
    fn parts_are_disjoint_and_make_the_whole() {
        let whole = parse("cpus:6;mem:900;ports:[1-5,11-15];zones:{a,b}");
        let parts: Vec<Resources> = (0..3).map(|i| part(&whole, i, 3)).collect();
        assert_eq!(parts[0], parse("cpus:2;mem:300;ports:[1-3];zones:{a,b}"));
        assert_eq!(parts[1], parse("cpus:2;mem:300;ports:[4-5,11-11]"));
        assert_eq!(parts[2], parse("cpus:2;mem:300;ports:[12-15]"));
        let sum = parts.iter().fold(Resources::new(), |sum, p| sum + p);
        assert_eq!(sum, whole);
        assert_eq!(part(&parse("cpus:2;mem:300"), 1, 3), parse("cpus:1;mem:100"));
    }
}
