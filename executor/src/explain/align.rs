//! Which step of an earlier plan is the same step: by the text of instructions within a stage, and what is left by place.

use std::collections::BTreeMap;

use super::journal::JournaledStep;

/// Where more pairs of texts than this would have to be compared, steps go by their place.
const MOST_COMPARED: usize = 1 << 22;

/// Finds for each of `new` its step among `old`.
pub(super) fn align(new: &[JournaledStep], old: &[JournaledStep]) -> Vec<Option<usize>> {
    let mut found = vec![None; new.len()];
    let (new_stages, old_stages) = (stages(new), stages(old));
    // Stages that were renamed, or have no name and another number, go by their order.
    let mut rest: Vec<&Vec<usize>> = old_stages
        .iter()
        .filter(|(name, _)| new_stages.iter().all(|it| it.0 != *name))
        .map(|it| &it.1)
        .collect();
    rest.reverse();
    for (name, ours) in &new_stages {
        let theirs = match old_stages.iter().find(|it| it.0 == *name) {
            Some((_, theirs)) => theirs,
            None => match rest.pop() {
                Some(theirs) => theirs,
                None => continue,
            },
        };
        align_stage(new, ours, old, theirs, &mut found);
    }
    found
}

/// The steps of each stage, in the order in which the stages begin.
fn stages(steps: &[JournaledStep]) -> Vec<(&str, Vec<usize>)> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    for (idx, step) in steps.iter().enumerate() {
        let place = *places.entry(&step.stage).or_insert_with(|| {
            stages.push((&step.stage, Vec::new()));
            stages.len() - 1
        });
        stages[place].1.push(idx);
    }
    stages
}

fn align_stage(
    new: &[JournaledStep],
    ours: &[usize],
    old: &[JournaledStep],
    theirs: &[usize],
    found: &mut [Option<usize>],
) {
    let is_same = |a: usize, b: usize| new[ours[a]].text == old[theirs[b]].text;
    let (mut ours_left, mut theirs_left) = (0..ours.len(), 0..theirs.len());
    while !ours_left.is_empty()
        && !theirs_left.is_empty()
        && is_same(ours_left.start, theirs_left.start)
    {
        found[ours[ours_left.start]] = Some(theirs[theirs_left.start]);
        ours_left.start += 1;
        theirs_left.start += 1;
    }
    while !ours_left.is_empty()
        && !theirs_left.is_empty()
        && is_same(ours_left.end - 1, theirs_left.end - 1)
    {
        ours_left.end -= 1;
        theirs_left.end -= 1;
        found[ours[ours_left.end]] = Some(theirs[theirs_left.end]);
    }
    // What both have in common in between, in order, as long as possible.
    let (n_ours, n_theirs) = (ours_left.len(), theirs_left.len());
    if n_ours.saturating_mul(n_theirs) > MOST_COMPARED {
        let (mut ours, mut theirs) = (ours[ours_left].to_vec(), theirs[theirs_left].to_vec());
        return pair_gap(new, old, &mut ours, &mut theirs, found);
    }
    let mut longest = vec![vec![0_u32; n_theirs + 1]; n_ours + 1];
    for a in (0..n_ours).rev() {
        for b in (0..n_theirs).rev() {
            longest[a][b] = match is_same(ours_left.start + a, theirs_left.start + b) {
                true => longest[a + 1][b + 1] + 1,
                false => longest[a + 1][b].max(longest[a][b + 1]),
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    let (mut gap_a, mut gap_b) = (Vec::new(), Vec::new());
    while a < n_ours || b < n_theirs {
        let (our, their) = (ours_left.start + a, theirs_left.start + b);
        if a < n_ours && b < n_theirs && is_same(our, their) {
            pair_gap(new, old, &mut gap_a, &mut gap_b, found);
            found[ours[our]] = Some(theirs[their]);
            a += 1;
            b += 1;
        } else if b == n_theirs || a < n_ours && longest[a + 1][b] >= longest[a][b + 1] {
            gap_a.push(ours[our]);
            a += 1;
        } else {
            gap_b.push(theirs[their]);
            b += 1;
        }
    }
    pair_gap(new, old, &mut gap_a, &mut gap_b, found);
}

/// Between the same neighbours, an instruction of the same kind is the same one with another text: the one most like it.
fn pair_gap(
    new: &[JournaledStep],
    old: &[JournaledStep],
    ours: &mut Vec<usize>,
    theirs: &mut Vec<usize>,
    found: &mut [Option<usize>],
) {
    for our in ours.drain(..) {
        let kind = word(&new[our].text);
        let alike = theirs.iter().enumerate().filter(|it| word(&old[*it.1].text) == kind);
        // Of several, the first: `max_by_key` would take the last.
        let best = alike.rev().max_by_key(|it| likeness(&new[our].text, &old[*it.1].text));
        if let Some((at, _)) = best {
            found[our] = Some(theirs.remove(at));
        }
    }
    theirs.clear();
}

/// How many bytes two texts have in common at their beginnings and ends.
fn likeness(one: &str, other: &str) -> usize {
    let same = |it: &(u8, u8)| it.0 == it.1;
    let begin = one.bytes().zip(other.bytes()).take_while(same).count();
    let end = one.bytes().rev().zip(other.bytes().rev()).take_while(same).count();
    begin + end
}

fn word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::journal::{Ref, State},
        *,
    };

    fn steps(text: &str) -> Vec<JournaledStep> {
        let step = |line: &str| {
            let (stage, text) = line.split_once(' ').expect("a stage and a text");
            JournaledStep {
                name: line.to_owned(),
                text: text.to_owned(),
                stage: stage.to_owned(),
                parent: Ref::Nothing,
                reads: Vec::new(),
                state: State::Hit,
                no_cache: false,
                key: None,
                recipe: Value::Null,
                output: None,
            }
        };
        text.lines().map(step).collect()
    }

    fn aligned(new: &str, old: &str) -> Vec<Option<usize>> {
        align(&steps(new), &steps(old))
    }

    #[test]
    fn steps_are_found_by_text_and_then_by_place() {
        let old = "a RUN 1\na RUN 2\na COPY x /\na RUN 3\nb RUN 1";
        assert_eq!(aligned(old, old), [0, 1, 2, 3, 4].map(Some));
        let inserted = "a RUN 1\na RUN new\na RUN 2\na COPY x /\na RUN 3";
        assert_eq!(aligned(inserted, old), [Some(0), None, Some(1), Some(2), Some(3)]);
        let changed = "a RUN 1\na RUN two\na COPY y /\na RUN 3";
        assert_eq!(aligned(changed, old), [0, 1, 2, 3].map(Some));
        let removed = "a RUN 1\na RUN 3";
        assert_eq!(aligned(removed, old), [0, 3].map(Some));
        let other_kind = "a RUN 1\na COPY z /\na COPY x /\na RUN 3";
        assert_eq!(aligned(other_kind, old), [Some(0), None, Some(2), Some(3)]);
        let like = "a RUN 1\na RUN 2 and more";
        assert_eq!(aligned(like, "a RUN 1\na RUN other\na RUN 2 and less"), [Some(0), Some(2)]);
        assert_eq!(aligned("", old), []);
        assert_eq!(aligned("a RUN 1", ""), [None]);
    }

    #[test]
    fn a_renamed_stage_is_the_same() {
        let old = "one RUN 1\nstage-1 RUN 2\nstage-1 RUN 3";
        let new = "one RUN 1\nlast RUN 2\nlast RUN 4";
        assert_eq!(aligned(new, old), [0, 1, 2].map(Some));
    }
}
