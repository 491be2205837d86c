//! One pattern of a list: what kind it is, and whether it matches a path.

use alloc::{string::String, vec, vec::Vec};
use core::mem;

use crate::wildcard::{BadPattern, Token, Unit, next_unit, parse, takes};

const SLASH: Unit = b'/' as Unit;

/// A pattern by the way in which it can be looked up.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// No wildcards: the whole path.
    Exact(Vec<u8>),
    /// `text**`: any path that begins so.
    Start(Vec<u8>),
    /// `**text`: any path that ends so, and `name` itself for `**/name`.
    End(Vec<u8>),
    /// Everything else.
    Glob(Glob),
}

/// A pattern with wildcards.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    pieces: Vec<Piece>,
    /// The bytes that a path must have, as [`letters`] counts them.
    letters: u64,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A literal, `?`, `*` or a class.
    Token(Token),
    /// `**/`: nothing, or any folders.
    Folders,
    /// `**` at the end: anything.
    Rest,
}

impl Form {
    /// Reads a cleaned pattern without its `!`.
    pub(super) fn parse(text: &str) -> Result<Self, BadPattern> {
        let tokens = parse(text.as_bytes())?;
        if tokens.iter().any(|it| matches!(it, Token::Class(class) if class.is_backwards())) {
            return Err(BadPattern);
        }
        let mut pieces = Vec::new();
        let mut rest = tokens.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            if (first, rest.first()) != (&Token::Star, Some(&Token::Star)) {
                pieces.push(Piece::Token(first.clone()));
                continue;
            }
            rest = &rest[1..];
            if let Some((Token::Literal(SLASH), tail)) = rest.split_first() {
                rest = tail;
            }
            pieces.push(if rest.is_empty() { Piece::Rest } else { Piece::Folders });
        }
        Ok(Self::sort(text, pieces))
    }

    fn sort(text: &str, pieces: Vec<Piece>) -> Self {
        let is_plain = |pieces: &[Piece]| {
            pieces.iter().all(|it| matches!(it, Piece::Token(Token::Literal(_))))
        };
        // With an escape, the text is not what it matches.
        if !text.contains('\\') {
            let bytes = text.as_bytes();
            if is_plain(&pieces) {
                return Self::Exact(bytes.to_vec());
            }
            match pieces.as_slice() {
                [Piece::Rest] => return Self::Start(Vec::new()),
                [start @ .., Piece::Rest] if is_plain(start) && text.ends_with("**") => {
                    return Self::Start(bytes[..bytes.len() - 2].to_vec());
                }
                // `**text` matches any path with that end, not only whole names.
                [Piece::Folders, end @ ..] if is_plain(end) => {
                    return Self::End(bytes[2..].to_vec());
                }
                _ => {}
            }
        }
        Self::Glob(Glob::new(pieces))
    }

    /// Reports whether the pattern matches exactly this path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Start(start) => path.starts_with(start),
            Self::End(end) => path.ends_with(end) || end.strip_prefix(b"/") == Some(path),
            Self::Glob(glob) => glob.matches(path),
        }
    }

    /// Reports whether the pattern might match something below a folder.
    pub(super) fn may_match_below(&self, folder: &[u8]) -> bool {
        let glob_start;
        let (start, is_whole) = match self {
            Self::Exact(text) => (text.as_slice(), true),
            Self::Start(start) => (start.as_slice(), false),
            Self::End(_) => return true,
            Self::Glob(glob) => {
                glob_start = glob.start();
                (glob_start.as_slice(), false)
            }
        };
        let is_below = start.strip_prefix(folder).is_some_and(|it| it.starts_with(b"/"));
        let is_open =
            folder.starts_with(start) || start.strip_suffix(b"/").is_some_and(|it| it == folder);
        is_below || is_open && !is_whole
    }
}

impl Glob {
    fn new(pieces: Vec<Piece>) -> Self {
        let literals = pieces.iter().filter_map(literal);
        let letters =
            literals.fold(0, |all, it| all | letters(it.encode_utf8(&mut [0; 4]).as_bytes()));
        Self { pieces, letters }
    }

    /// Returns the text before the first wildcard.
    pub(super) fn start(&self) -> Vec<u8> {
        text(self.pieces.iter())
    }

    /// Returns the text after the last wildcard.
    pub(super) fn end(&self) -> Vec<u8> {
        let n_literals = self.pieces.iter().rev().map_while(literal).count();
        text(self.pieces.iter().skip(self.pieces.len() - n_literals))
    }

    /// Returns the text between a leading `**/` and the next wildcard.
    pub(super) fn part_start(&self) -> Vec<u8> {
        match self.pieces.split_first() {
            Some((Piece::Folders, rest)) => text(rest.iter()),
            _ => Vec::new(),
        }
    }

    /// Reports whether a path with these [`letters`] can match at all.
    pub(super) fn may_match(&self, letters: u64) -> bool {
        self.letters & !letters == 0
    }

    /// Matches a whole path, all ways at once.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let n_pieces = self.pieces.len();
        let mut places = vec![false; n_pieces + 1];
        let mut next = vec![false; n_pieces + 1];
        self.arrive(&mut places, 0);
        let mut rest = path;
        while let Some((unit, tail)) = next_unit(rest) {
            rest = tail;
            let mut is_alive = false;
            for (piece_idx, piece) in self.pieces.iter().enumerate() {
                if !mem::take(&mut places[piece_idx]) {
                    continue;
                }
                let (stays, passes) = match piece {
                    Piece::Token(Token::Star) => (unit != SLASH, false),
                    Piece::Token(token) => (false, takes(token, unit)),
                    Piece::Folders => (true, unit == SLASH),
                    Piece::Rest => (true, false),
                };
                if stays {
                    next[piece_idx] = true;
                    // What may end at any time also ends here; folders only end at a slash.
                    if *piece != Piece::Folders {
                        self.arrive(&mut next, piece_idx + 1);
                    }
                }
                if passes {
                    self.arrive(&mut next, piece_idx + 1);
                }
                is_alive |= stays || passes;
            }
            if !is_alive {
                return false;
            }
            places[n_pieces] = false;
            mem::swap(&mut places, &mut next);
        }
        places[n_pieces]
    }

    /// Marks a place, and those after it that need no character to be reached.
    fn arrive(&self, places: &mut [bool], place: usize) {
        for piece_idx in place..places.len() {
            places[piece_idx] = true;
            match self.pieces.get(piece_idx) {
                Some(Piece::Token(Token::Star) | Piece::Folders | Piece::Rest) => {}
                _ => break,
            }
        }
    }
}

fn literal(piece: &Piece) -> Option<char> {
    match piece {
        Piece::Token(Token::Literal(unit)) => char::from_u32(*unit),
        _ => None,
    }
}

/// Collects the literals at the start.
fn text<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<u8> {
    pieces.map_while(literal).collect::<String>().into_bytes()
}

/// Says which bytes a text has, as a set of their lower six bits.
pub(super) fn letters(text: &[u8]) -> u64 {
    text.iter().fold(0, |all, byte| all | 1 << (byte & 63))
}
