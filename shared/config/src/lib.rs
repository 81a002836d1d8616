//! Reading configuration files with errors that name file, line, key and remedy.
