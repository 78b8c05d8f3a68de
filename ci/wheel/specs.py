"""The specs of the catalogue, as a package: `pytest --pyargs gradverify.specs` finds them in an installed wheel."""
