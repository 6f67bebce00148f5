"""What tests of several floors build on."""
