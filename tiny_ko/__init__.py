"""The maker of tiny-ko, the small Korean language model embedded in jinmaek."""
