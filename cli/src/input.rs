//! What a user hands in: documents, parameters, and the offline checks. No network, and only `documents` reads files.

pub(crate) mod check;
pub(crate) mod documents;
pub(crate) mod members;
pub(crate) mod params;

use crate::args::InputArgs;
use crate::failure::Failure;
use documents::Document;
use params::Params;

/// Reads the documents and puts the parameters into them.
pub(crate) fn read(args: &InputArgs) -> Result<Vec<Document>, Failure> {
    let params = Params::parse(&args.params)?;
    let mut documents = documents::read(&args.files)?;
    params.put_into(&mut documents)?;
    Ok(documents)
}
