//! Reads that stand next to each other in an exchange ask for their marks together.
//!
//! A read with a [lease](super::lease) wants three things of the server: the mark of the key's slot, the wide marks, and the value; the marks
//! first, for a lease is good only if it is older than what was found. So a run of reads asks once for all the slots' marks and
//! once for the wide ones, and then for the values: little more than one command a key instead of three. What comes back is dealt out as
//! if each had asked for itself.
//!
//! In a Cluster the marks are on the servers of their slots, and each read asks for its own.

use crate::tier::remote::keys::Layout;
use crate::tier::remote::lease::Lease;
use crate::tier::remote::link::{Answer, Batch};
use crate::tier::remote::shared::{Core, Job};
use crate::tier::remote::work::Work;

/// A part of an exchange: jobs whose commands stand together.
pub(super) enum Part {
    /// A job with so many commands, each with its own answer.
    One(usize),
    /// Reads, at least one of them with a lease.
    Reads(Vec<Read>),
}

/// What a read wants of the exchange.
pub(super) enum Read {
    /// So many values.
    Values(usize),
    /// A value and its marks; the wide ones by the number of the namespace among those that were asked for.
    Leased(usize),
}

impl Core {
    /// Puts the commands of these jobs into the batch, in order.
    pub(super) fn encode_all(&self, jobs: &[Job], batch: &mut Batch) -> Vec<Part> {
        let mut parts = Vec::with_capacity(jobs.len());
        for run in jobs.chunk_by(|left, right| left.work.is_read() && right.work.is_read()) {
            let has_leases = run.iter().any(|job| matches!(job.work, Work::ReadLeased(_)));
            if has_leases && !self.endpoint.is_cluster() {
                parts.push(Part::Reads(self.encode_reads(run, batch)));
                continue;
            }
            for job in run {
                let before = batch.len();
                self.encode(&job.work, batch);
                parts.push(Part::One(batch.len() - before));
            }
        }
        parts
    }

    fn encode_reads(&self, run: &[Job], batch: &mut Batch) -> Vec<Read> {
        let mut slots: Vec<&[u8]> = Vec::new();
        let mut namespaces: Vec<&str> = Vec::new();
        let reads = run.iter().map(|job| match &job.work {
            Work::ReadLeased(place) => {
                slots.push(place.slot().as_bytes());
                Read::Leased(number(&mut namespaces, place.namespace()))
            }
            work => Read::Values(work.places().len()),
        });
        let reads = reads.collect();
        batch.add("MGET", &slots);
        let fields: Vec<String> = namespaces.into_iter().map(|namespace| Layout::field(Some(namespace))).collect();
        let wide = [self.layout.epoch(), "id", "*"].into_iter().chain(fields.iter().map(String::as_str)).map(str::as_bytes);
        batch.add("HMGET", &wide.collect::<Vec<_>>());
        self.encode_values(run.iter().flat_map(|job| job.work.places()), batch);
        reads
    }
}

/// Where this stands in the list, which it is put into if it is new.
fn number<'n>(list: &mut Vec<&'n str>, name: &'n str) -> usize {
    list.iter().position(|one| *one == name).unwrap_or_else(|| {
        list.push(name);
        list.len() - 1
    })
}

/// Deals out the answers: for each job its own, and where they end.
pub(super) fn deal(parts: &[Part], answers: Vec<Answer>) -> (Vec<Answer>, Vec<usize>) {
    let mut ends = Vec::with_capacity(parts.len());
    if parts.iter().all(|part| matches!(part, Part::One(_))) {
        let mut end = 0;
        ends.extend(parts.iter().map(|part| {
            end += if let Part::One(commands) = part { *commands } else { 0 };
            end
        }));
        return (answers, ends);
    }
    let mut dealt = Vec::with_capacity(answers.len());
    let mut answers = answers.into_iter();
    for part in parts {
        match part {
            Part::One(commands) => {
                dealt.extend(answers.by_ref().take(*commands));
                ends.push(dealt.len());
            }
            Part::Reads(reads) => {
                let leased = reads.iter().filter(|read| matches!(read, Read::Leased(_))).count();
                let mut slots = slot_marks(answers.next(), leased).into_iter();
                let wide = wide_marks(answers.next());
                for read in reads {
                    let values = match read {
                        Read::Values(values) => *values,
                        Read::Leased(namespace) => {
                            dealt.extend(slots.next());
                            dealt.push(match &wide {
                                Ok(marks) => marks.get(*namespace).cloned().unwrap_or_else(nothing_asked_for),
                                Err(refused) => refused.clone(),
                            });
                            1
                        }
                    };
                    dealt.extend(answers.by_ref().take(values));
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

    /// A write, then reads: with a lease, of two keys without, with a lease in another namespace, and with one in the first again.
    fn parts() -> Vec<Part> {
        let reads = vec![Read::Leased(0), Read::Values(2), Read::Leased(1), Read::Leased(0)];
        vec![Part::One(1), Part::Reads(reads)]
    }

    fn answers() -> Vec<Answer> {
        let slots = Answer::List(vec![bytes("s1"), Answer::Nil, bytes("s3")]);
        let wide = Answer::List(vec![bytes("id"), bytes("all"), bytes("curves"), Answer::Nil]);
        let values = ["v1", "v2", "v3", "v4", "v5"].map(bytes);
        [vec![Answer::Int(1), slots, wide], values.into()].concat()
    }

    #[test]
    fn each_read_gets_its_values_and_the_marks_of_its_key() {
        let (dealt, ends) = deal(&parts(), answers());
        let [curves, other] = ["id/curves/all", "id//all"].map(|mark| Answer::Mark(mark.as_bytes().into()));
        let expected = [
            vec![Answer::Int(1)],
            vec![bytes("s1"), curves.clone(), bytes("v1")],
            vec![bytes("v2"), bytes("v3")],
            vec![Answer::Nil, other, bytes("v4")],
            vec![bytes("s3"), curves, bytes("v5")],
        ];
        assert_eq!(ends, [1, 4, 6, 9, 12]);
        assert_eq!(dealt, expected.concat());
    }

    #[test]
    fn what_was_not_asked_for_fits_no_read() {
        let place = || Layout::new("aurum").place("curves", "k");
        let jobs = [Work::ReadLeased(place()), Work::ReadMany(vec![place(), place()])];
        let parts = [Part::Reads(vec![Read::Leased(0), Read::Values(2)])];
        let marks = |count| Answer::List(vec![bytes("mark"); count]);
        let fits = |answers: Vec<Answer>| {
            let (dealt, ends) = deal(&parts, answers);
            jobs[0].fits(&dealt[..ends[0]], false) && jobs[1].fits(&dealt[ends[0]..], false)
        };
        assert!(fits(vec![marks(1), marks(3), bytes("v"), bytes(""), bytes("w")]));
        for wrong in [
            vec![marks(2), marks(3), bytes("v"), bytes(""), bytes("w")],
            vec![marks(1), marks(2), bytes("v"), bytes(""), bytes("w")],
            vec![marks(1), marks(3), bytes("v"), bytes("")],
            vec![marks(1), marks(3), bytes("v"), bytes(""), bytes("w"), bytes("x")],
            vec![bytes("v"), marks(1), marks(3), bytes(""), bytes("w")],
            vec![marks(1), marks(3), bytes("v"), marks(1), bytes("w")],
            vec![],
        ] {
            assert!(!fits(wrong.clone()), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_is_each_readers() {
        let refused = Answer::Refused("LOADING".into(), "not yet".into());
        let (dealt, _) = deal(&parts()[1..], vec![refused.clone(); 7]);
        assert_eq!(dealt, vec![refused; 11]);
    }
}
