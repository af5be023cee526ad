//! Reads that stand next to each other in an exchange ask for their marks together.
//!
//! A read wants three things of the server: the mark of the key's slot, the wide marks, and the value; the marks first, for a
//! [lease](super::lease) is good only if it is older than what was found. So a run of reads asks once for all the slots' marks and once for the
//! wide ones, and then for the values: little more than one command a key instead of three. What comes back is dealt out as if
//! each had asked for itself.
//!
//! In a Cluster the marks are on the servers of their slots, and each read asks for its own.

use crate::entry::Header;
use crate::tier::remote::keys::{Layout, Place};
use crate::tier::remote::lease::Lease;
use crate::tier::remote::link::{Answer, Batch};
use crate::tier::remote::shared::{Core, Job};
use crate::tier::remote::work::Work;

/// A part of an exchange: jobs whose commands stand together.
pub(super) enum Part {
    /// Another job than a read, or one in a Cluster, with so many commands.
    One(usize),
    /// Reads: how many keys each has, and for each key the number of its namespace among those whose marks were asked for.
    Reads { keys: Vec<usize>, namespaces: Vec<usize> },
}

impl Core {
    /// Puts the commands of these jobs into the batch, in order.
    pub(super) fn encode_all(&self, jobs: &[Job], batch: &mut Batch) -> Vec<Part> {
        let mut parts = Vec::new();
        for run in jobs.chunk_by(|left, right| self.reads_together(&left.work) && self.reads_together(&right.work)) {
            if run.iter().all(|job| self.reads_together(&job.work)) {
                let places: Vec<&Place> = run.iter().flat_map(|job| job.work.places()).collect();
                let keys = run.iter().map(|job| job.work.places().len()).collect();
                parts.push(Part::Reads { keys, namespaces: self.encode_reads(&places, batch) });
            } else {
                for job in run {
                    let before = batch.len();
                    self.encode(&job.work, batch);
                    parts.push(Part::One(batch.len() - before));
                }
            }
        }
        parts
    }

    fn reads_together(&self, work: &Work) -> bool {
        matches!(work, Work::Read(_)) && !self.endpoint.is_cluster()
    }

    fn encode_reads(&self, places: &[&Place], batch: &mut Batch) -> Vec<usize> {
        let slots: Vec<&[u8]> = places.iter().map(|place| place.slot().as_bytes()).collect();
        batch.add("MGET", &slots);
        let mut namespaces: Vec<&str> = Vec::new();
        let of_keys = places.iter().map(|place| {
            namespaces.iter().position(|namespace| *namespace == place.namespace()).unwrap_or_else(|| {
                namespaces.push(place.namespace());
                namespaces.len() - 1
            })
        });
        let of_keys = of_keys.collect();
        let fields: Vec<String> = namespaces.into_iter().map(|namespace| Layout::field(Some(namespace))).collect();
        let wide = [self.layout.epoch(), "id", "*"].into_iter().chain(fields.iter().map(String::as_str)).map(str::as_bytes);
        batch.add("HMGET", &wide.collect::<Vec<_>>());
        // One byte more than is allowed tells what is too large.
        let last = (self.max_value + Header::LEN as u64).to_string();
        places.iter().for_each(|place| batch.add("GETRANGE", &[place.entry().as_bytes(), b"0", last.as_bytes()]));
        of_keys
    }
}

/// Deals out the answers: for each job its own, and where they end.
pub(super) fn deal(parts: &[Part], answers: Vec<Answer>) -> (Vec<Answer>, Vec<usize>) {
    let (mut dealt, mut ends) = (Vec::with_capacity(answers.len() * 3), Vec::with_capacity(parts.len()));
    let mut answers = answers.into_iter();
    for part in parts {
        match part {
            Part::One(commands) => {
                dealt.extend(answers.by_ref().take(*commands));
                ends.push(dealt.len());
            }
            Part::Reads { keys, namespaces } => {
                let mut slots = slot_marks(answers.next(), namespaces.len()).into_iter();
                let wide = wide_marks(answers.next());
                let mut namespaces = namespaces.iter();
                for keys in keys {
                    for namespace in namespaces.by_ref().take(*keys) {
                        dealt.extend(slots.next());
                        dealt.push(match &wide {
                            Ok(marks) => marks.get(*namespace).cloned().unwrap_or_else(nothing_asked_for),
                            Err(refused) => refused.clone(),
                        });
                        dealt.extend(answers.next());
                    }
                    ends.push(dealt.len());
                }
            }
        }
    }
    // One too many is somebody's, too.
    dealt.extend(answers);
    (dealt, ends)
}

/// The marks of so many slots.
fn slot_marks(answer: Option<Answer>, count: usize) -> Vec<Answer> {
    match answer {
        Some(Answer::List(marks)) if marks.len() == count => marks,
        Some(refused @ Answer::Refused(..)) => vec![refused; count],
        _ => vec![nothing_asked_for(); count],
    }
}

/// For each namespace the wide marks of its keys, [joined](Lease::joined).
fn wide_marks(answer: Option<Answer>) -> Result<Vec<Answer>, Answer> {
    match answer {
        Some(Answer::List(list)) => match list.as_slice() {
            [id, all, namespaces @ ..] => Ok(namespaces.iter().map(|namespace| Lease::joined(id, namespace, all)).collect()),
            _ => Err(nothing_asked_for()),
        },
        Some(refused @ Answer::Refused(..)) => Err(refused),
        _ => Err(nothing_asked_for()),
    }
}

/// An answer that [fits](Work::fits) no read.
fn nothing_asked_for() -> Answer {
    Answer::List(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Answer {
        Answer::Bytes(text.into())
    }

    /// A write, then three reads: of two keys, of one in another namespace, and of one in the first again.
    fn parts() -> Vec<Part> {
        vec![Part::One(1), Part::Reads { keys: vec![2, 1, 1], namespaces: vec![0, 0, 1, 0] }]
    }

    fn answers() -> Vec<Answer> {
        let slots = Answer::List(vec![bytes("s1"), Answer::Nil, bytes("s3"), bytes("s4")]);
        let wide = Answer::List(vec![bytes("id"), bytes("all"), bytes("curves"), Answer::Nil]);
        vec![Answer::Int(1), slots, wide, bytes("v1"), bytes("v2"), bytes("v3"), bytes("v4")]
    }

    #[test]
    fn each_read_gets_the_marks_of_its_key_and_its_value() {
        let (dealt, ends) = deal(&parts(), answers());
        let [curves, other] = ["id/curves/all", "id//all"].map(|mark| Answer::Mark(mark.as_bytes().into()));
        let read = |slot, wide: &Answer, value| [slot, wide.clone(), bytes(value)];
        let expected = [
            vec![Answer::Int(1)],
            [read(bytes("s1"), &curves, "v1"), read(Answer::Nil, &curves, "v2")].concat(),
            read(bytes("s3"), &other, "v3").into(),
            read(bytes("s4"), &curves, "v4").into(),
        ];
        assert_eq!(ends, [1, 7, 10, 13]);
        assert_eq!(dealt, expected.concat());
    }

    #[test]
    fn what_was_not_asked_for_fits_no_read() {
        let place = || Layout::new("aurum").place("curves", "k");
        let read = Work::Read(vec![place(), place()]);
        let parts = [Part::Reads { keys: vec![2], namespaces: vec![0, 0] }];
        let marks = |count| Answer::List(vec![bytes("mark"); count]);
        let fits = |answers: Vec<Answer>| {
            let (dealt, ends) = deal(&parts, answers);
            read.fits(&dealt[..ends[0]], false)
        };
        assert!(fits(vec![marks(2), marks(3), bytes("v"), bytes("")]));
        for wrong in [
            vec![marks(1), marks(3), bytes("v"), bytes("")],
            vec![marks(2), marks(2), bytes("v"), bytes("")],
            vec![marks(2), marks(3), bytes("v")],
            vec![bytes("v"), marks(2), marks(3), bytes("v")],
            vec![marks(2), marks(3), marks(2), bytes("v")],
            vec![],
        ] {
            assert!(!fits(wrong.clone()), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_is_each_readers() {
        let refused = Answer::Refused("LOADING".into(), "not yet".into());
        let (dealt, _) = deal(&parts()[1..], vec![refused.clone(); 6]);
        assert_eq!(dealt, vec![refused; 12]);
    }
}
