"""How weights travel from the learner into the engines: one file a transport behind one base class."""
