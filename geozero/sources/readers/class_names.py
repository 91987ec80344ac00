"""The class folders of the scene classification sets, spelled as they are distributed; here to be told apart, too."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RESISC45 = _names(
    "airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud "
    "commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area "
    "intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway "
    "railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium "
    "storage_tank tennis_court terrace thermal_power_station wetland"
)
EUROSAT = _names(
    "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
)
AID = _names(
    "Airport BareLand BaseballField Beach Bridge Center Church Commercial DenseResidential Desert Farmland Forest "
    "Industrial Meadow MediumResidential Mountain Park Parking Playground Pond Port RailwayStation Resort River "
    "School SparseResidential Square Stadium StorageTanks Viaduct"
)
UCM = _names(
    "agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse "
    "harbor intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential "
    "storagetanks tenniscourt"
)
# assumed spelling of the folders; the class names are known
NASC_TG2 = _names(
    "beach circular_farmland cloud desert forest mountain rectangular_farmland residential river snowberg"
)
WHU_RS19 = _names(
    "Airport Beach Bridge Commercial Desert Farmland footballField Forest Industrial Meadow Mountain Park Parking "
    "Pond Port railwayStation Residential River Viaduct"
)
SIRI_WHU = _names(
    "agriculture commercial harbor idle_land industrial meadow overpass park pond residential river water"
)
FMOW = _names(
    "airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint "
    "burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution "
    "electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course "
    "ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse "
    "military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park "
    "parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge "
    "recreational_facility road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm "
    "space_facility stadium storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal "
    "water_treatment_facility wind_farm zoo"
)

SCENE_SETS = (AID, RESISC45, EUROSAT, UCM, NASC_TG2, WHU_RS19, SIRI_WHU)

# Other data sets of scenes with class folders of the same names, which are none of ours: PatternNet (Zhou et al. 2018),
# RSSCN7 (Zou et al. 2015), OPTIMAL-31 (Wang et al. 2018), MLRSNet (Qi et al. 2020), CLRS (Li et al. 2020).
OTHER_SETS = {
    "PatternNet": _names(
        "airplane baseball_field basketball_court beach bridge cemetery chaparral christmas_tree_farm closed_road "
        "coastal_mansion crosswalk dense_residential ferry_terminal football_field forest freeway golf_course harbor "
        "intersection mobile_home_park nursing_home oil_gas_field oil_well overpass parking_lot parking_space railway "
        "river runway runway_marking shipping_yard solar_panel sparse_residential storage_tank swimming_pool "
        "tennis_court transformer_station wastewater_treatment_plant"
    ),
    "RSSCN7": _names("aGrass bField cIndustry dRiverLake eForest fResident gParking"),
    "OPTIMAL-31": _names(
        "airplane airport baseball_diamond basketball_court beach bridge bushes church crossroads dense_houses desert "
        "factory forest freeway golf_field harbor island lake meadow medium_houses mobile_house_area mountain overpass "
        "parking_lot playground railway rectangular_farmland roundabout round_farmland runway sparse_houses"
    ),
    "MLRSNet": _names(
        "airplane airport bareland baseball_diamond basketball_court beach bridge chaparral cloud commercial_area "
        "dense_residential_area desert eroded_farmland farmland forest freeway golf_course ground_track_field harbor "
        "harbor_port industrial_area intersection island lake meadow mobile_home_park mountain overpass park "
        "parking_lot parkway railway railway_station river roundabout shipping_yard snowberg sparse_residential_area "
        "stadium storage_tank swimming_pool tennis_court terrace transmission_tower vegetable_greenhouse wetland "
        "wind_turbine"
    ),
    "CLRS": _names(
        "airport bare-land beach bridge commercial desert farmland forest golf-course highway industrial meadow "
        "mountain overpass park parking playground port railway railway-station residential river runway stadium "
        "storage-tank"
    ),
}
